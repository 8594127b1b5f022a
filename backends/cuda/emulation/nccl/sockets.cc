// A stand-in for libnccl in the emulated build: the same functions, over TCP sockets between processes on one machine.
// Operations are operations of the emulated streams and move on when these run; like the real ones they wait for ever for
// a process that stopped, and end when the communicator is aborted. It carries bytes and checks sizes, nothing else: no
// topology, no speed.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "../../native/ncclAbi.h"

using namespace nccl;

#define EXPORTED extern "C" __attribute__((visibility("default")))

namespace {

constexpr int VERSION = 22809;
constexpr uint32_t MAGIC = 0xfa2a5ccc;

std::mutex textMutex;
std::string lastText = "no error";
EmulatedStreams streams = {};
/** Operations that are enqueued and not done: while there are any a thread keeps the emulated devices going. */
std::atomic<int> pending{0};
std::atomic<bool> driving{false};

Result fail(Result result, const std::string& text) {
  const std::lock_guard lock(textMutex);
  lastText = text;
  return result;
}

size_t bytesOf(DataType type) { return type == DataType::Int32 ? 4 : 1; }

/** What lies in a UniqueId: where the first process of the communicator listens. */
struct Root {
  uint32_t magic;
  uint16_t port;
};

struct Socket {
  int fd = -1;
  Socket() = default;
  explicit Socket(int fd) : fd(fd) {}
  ~Socket() {
    if (fd >= 0) close(fd);
  }
  Socket(Socket&& other) noexcept : fd(std::exchange(other.fd, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(fd, other.fd);
    return *this;
  }
};

Socket listenLocally(uint16_t& port) {
  Socket server(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  if (bind(server.fd, reinterpret_cast<sockaddr*>(&address), length) != 0 || listen(server.fd, 128) != 0) return {};
  getsockname(server.fd, reinterpret_cast<sockaddr*>(&address), &length);
  port = ntohs(address.sin_port);
  return server;
}

Socket dial(uint16_t port) {
  Socket one(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  if (connect(one.fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return {};
  const int on = 1;
  setsockopt(one.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  return one;
}

/** Waits for a connection while `wanted()`. */
template <class F>
Socket acceptWhile(const Socket& server, F wanted) {
  while (wanted()) {
    pollfd one = {server.fd, POLLIN, 0};
    if (poll(&one, 1, 20) <= 0) continue;
    Socket made(accept4(server.fd, nullptr, nullptr, SOCK_CLOEXEC));
    const int on = 1;
    setsockopt(made.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return made;
  }
  return {};
}

bool sendAll(const Socket& to, const void* data, size_t bytes) {
  const char* at = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t sent = send(to.fd, at, bytes, MSG_NOSIGNAL);
    if (sent <= 0) return false;
    at += sent;
    bytes -= static_cast<size_t>(sent);
  }
  return true;
}

template <class F>
bool receiveAll(const Socket& from, void* data, size_t bytes, F wanted) {
  char* at = static_cast<char*>(data);
  while (bytes > 0) {
    if (!wanted()) return false;
    pollfd one = {from.fd, POLLIN, 0};
    if (poll(&one, 1, 20) <= 0) continue;
    const ssize_t got = recv(from.fd, at, bytes, 0);
    if (got <= 0) return false;
    at += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

struct Hello {
  uint32_t magic;
  uint32_t rank;
  uint32_t size;
  uint16_t port;
};

/** The roots of this process's ids; each serves one communicator: collects its members and tells all where all are. */
void serve(Socket server) {
  std::thread([server = std::move(server)] {
    std::vector<Socket> members;
    std::vector<uint16_t> ports;
    size_t here = 0;
    const auto started = std::chrono::steady_clock::now();
    const auto wanted = [&] { return std::chrono::steady_clock::now() - started < std::chrono::minutes(2); };
    while (members.empty() || here < members.size()) {
      Socket one = acceptWhile(server, wanted);
      Hello hello = {};
      if (one.fd < 0) return;
      if (!receiveAll(one, &hello, sizeof hello, wanted) || hello.magic != MAGIC || hello.rank >= hello.size) continue;
      if (members.empty()) {
        members.resize(hello.size);
        ports.resize(hello.size);
      }
      if (hello.size != members.size() || members[hello.rank].fd >= 0) continue;
      members[hello.rank] = std::move(one);
      ports[hello.rank] = hello.port;
      here++;
    }
    for (const Socket& member : members) sendAll(member, ports.data(), ports.size() * sizeof(uint16_t));
  }).detach();
}

}  // namespace

struct nccl::CommOpaque {};

namespace {

struct World {
  int rank = 0;
  int size = 0;
  /** By rank; our own has none. */
  std::vector<Socket> links;
  std::atomic<Result> state{Result::InProgress};
  std::atomic<bool> aborted{false};
  std::string text;

  void broken(Result result, const std::string& why) {
    fail(result, why);
    state = result;
  }
};

/** A handle is a pointer to this; operations keep the world alive past the handle. */
struct Handle : nccl::CommOpaque {
  std::shared_ptr<World> world;
};

std::shared_ptr<World> worldOf(Comm comm) { return static_cast<Handle*>(comm)->world; }

void join(const std::shared_ptr<World>& world, const Root& root) {
  const auto wanted = [&] { return !world->aborted.load(); };
  uint16_t port = 0;
  const Socket server = listenLocally(port);
  const Socket toRoot = dial(root.port);
  const Hello hello = {MAGIC, static_cast<uint32_t>(world->rank), static_cast<uint32_t>(world->size), port};
  std::vector<uint16_t> ports(static_cast<size_t>(world->size));
  if (server.fd < 0 || toRoot.fd < 0 || !sendAll(toRoot, &hello, sizeof hello) ||
      !receiveAll(toRoot, ports.data(), ports.size() * sizeof(uint16_t), wanted)) {
    return world->broken(Result::SystemError, "the root of the communicator does not answer");
  }
  for (int other = 0; other < world->rank; other++) {
    Socket link = dial(ports[static_cast<size_t>(other)]);
    if (link.fd < 0 || !sendAll(link, &hello, sizeof hello)) {
      return world->broken(Result::RemoteError, "rank " + std::to_string(other) + " does not answer");
    }
    world->links[static_cast<size_t>(other)] = std::move(link);
  }
  for (int more = world->rank + 1; more < world->size; more++) {
    Socket link = acceptWhile(server, wanted);
    Hello theirs = {};
    if (link.fd < 0 || !receiveAll(link, &theirs, sizeof theirs, wanted) || theirs.magic != MAGIC) {
      return world->broken(Result::RemoteError, "a rank did not come");
    }
    world->links[theirs.rank] = std::move(link);
  }
  for (const Socket& link : world->links) {
    if (link.fd >= 0) fcntl(link.fd, F_SETFL, fcntl(link.fd, F_GETFL) | O_NONBLOCK);
  }
  world->state = Result::Success;
}

/** One direction of one pair: a size, then the bytes. */
struct Transfer {
  bool send;
  int other;
  char* data;
  uint64_t bytes;
  uint64_t header = 0;
  uint64_t done = 0;  // header included

  bool finished() const { return done == bytes + sizeof header; }
};

struct Operation {
  std::shared_ptr<World> world;
  std::vector<Transfer> transfers;
  /** Own part of a collective. */
  const void* copyFrom = nullptr;
  void* copyTo = nullptr;
  size_t copyBytes = 0;

  /** Moves a transfer on. False when the connection is broken. */
  bool advance(Transfer& one) {
    const int fd = world->links[static_cast<size_t>(one.other)].fd;
    while (!one.finished()) {
      const bool inHeader = one.done < sizeof one.header;
      if (one.send && inHeader) one.header = one.bytes;
      char* at = inHeader ? reinterpret_cast<char*>(&one.header) + one.done : one.data + (one.done - sizeof one.header);
      const size_t left = inHeader ? sizeof one.header - one.done : one.bytes + sizeof one.header - one.done;
      const ssize_t moved = one.send ? ::send(fd, at, left, MSG_NOSIGNAL) : ::recv(fd, at, left, 0);
      if (moved < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return true;
      if (moved <= 0) {
        world->broken(Result::RemoteError, "connection closed by remote rank " + std::to_string(one.other));
        return false;
      }
      one.done += static_cast<uint64_t>(moved);
      if (!one.send && one.done == sizeof one.header && one.header != one.bytes) {
        world->broken(Result::InvalidUsage, "rank " + std::to_string(one.other) + " sends " + std::to_string(one.header) +
                                                " bytes, rank " + std::to_string(world->rank) + " expects " +
                                                std::to_string(one.bytes));
        return false;
      }
    }
    return true;
  }

  /** 1 when done. A broken communicator keeps its operations until it is aborted, like the real one. */
  int poll() {
    if (world->aborted) return 1;
    if (world->state != Result::Success) return 0;
    if (copyBytes > 0) std::memmove(copyTo, copyFrom, std::exchange(copyBytes, 0));
    bool all = true;
    for (size_t i = 0; i < transfers.size(); i++) {
      // One connection carries a pair's transfers of one direction one after the other.
      bool first = true;
      for (size_t j = 0; j < i && first; j++) {
        first = transfers[j].finished() || transfers[j].send != transfers[i].send || transfers[j].other != transfers[i].other;
      }
      if (first && !advance(transfers[i])) return 0;
      all = all && transfers[i].finished();
    }
    return all ? 1 : 0;
  }
};

/** Real devices go on by themselves: while anything is pending, this does it for the emulated ones. */
void keepDriving() {
  if (driving.exchange(true)) return;
  std::thread([] {
    for (int idle = 0; idle < 50; idle = pending > 0 ? 0 : idle + 1) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      if (pending > 0) streams.drive();
    }
    driving = false;
  }).detach();
}

void enqueue(Stream stream, std::unique_ptr<Operation> operation) {
  pending++;
  keepDriving();
  streams.enqueue(
      stream, [](void* state) { return static_cast<Operation*>(state)->poll(); },
      [](void* state) {
        delete static_cast<Operation*>(state);
        pending--;
      },
      operation.release());
}

struct Grouped {
  std::shared_ptr<World> world;
  Stream stream;
  Transfer transfer;
};
thread_local int groupDepth = 0;
thread_local std::vector<Grouped> grouped;

void flushGroup() {
  std::vector<Grouped> list = std::exchange(grouped, {});
  while (!list.empty()) {
    auto operation = std::make_unique<Operation>();
    operation->world = list[0].world;
    const Stream stream = list[0].stream;
    std::vector<Grouped> rest;
    for (Grouped& one : list) {
      if (one.world == operation->world && one.stream == stream) {
        operation->transfers.push_back(one.transfer);
      } else {
        rest.push_back(one);
      }
    }
    list = std::move(rest);
    enqueue(stream, std::move(operation));
  }
}

Result add(bool send, void* data, size_t count, DataType type, int other, Comm comm, Stream stream) {
  const auto world = worldOf(comm);
  if (other < 0 || other >= world->size || other == world->rank) {
    return fail(Result::InvalidArgument, "rank " + std::to_string(other) + " is not another rank of the communicator");
  }
  grouped.push_back({world, stream, {send, other, static_cast<char*>(data), count * bytesOf(type)}});
  if (groupDepth == 0) flushGroup();
  return Result::Success;
}

}  // namespace

EXPORTED void fa2aAttachEmulatedStreams(const EmulatedStreams* given) { streams = *given; }

EXPORTED Result ncclGetVersion(int* version) {
  *version = VERSION;
  return Result::Success;
}

EXPORTED const char* ncclGetErrorString(Result result) {
  switch (result) {
    case Result::Success: return "no error";
    case Result::RemoteError: return "remote process exited or there was a network error";
    case Result::InProgress: return "operation in progress";
    case Result::InvalidUsage: return "invalid usage";
    default: return "stand-in error";
  }
}

EXPORTED const char* ncclGetLastError(Comm) {
  thread_local std::string copy;
  const std::lock_guard lock(textMutex);
  copy = lastText;
  return copy.c_str();
}

EXPORTED Result ncclGetUniqueId(UniqueId* id) {
  Root root = {MAGIC, 0};
  Socket server = listenLocally(root.port);
  if (server.fd < 0) return fail(Result::SystemError, "cannot listen on 127.0.0.1");
  std::memset(id, 0, sizeof *id);
  std::memcpy(id->internal, &root, sizeof root);
  serve(std::move(server));
  return Result::Success;
}

EXPORTED Result ncclCommInitRankConfig(Comm* comm, int size, UniqueId id, int rank, Config*) {
  Root root;
  std::memcpy(&root, id.internal, sizeof root);
  if (root.magic != MAGIC || size < 1 || rank < 0 || rank >= size) {
    return fail(Result::InvalidArgument, "a damaged id, or a rank outside the communicator");
  }
  auto* handle = new Handle;
  handle->world = std::make_shared<World>();
  handle->world->rank = rank;
  handle->world->size = size;
  handle->world->links.resize(static_cast<size_t>(size));
  *comm = handle;
  std::thread([world = handle->world, root] { join(world, root); }).detach();
  return Result::InProgress;
}

EXPORTED Result ncclCommDestroy(Comm comm) {
  delete static_cast<Handle*>(comm);
  return Result::Success;
}

EXPORTED Result ncclCommAbort(Comm comm) {
  worldOf(comm)->aborted = true;
  delete static_cast<Handle*>(comm);
  return Result::Success;
}

EXPORTED Result ncclCommGetAsyncError(Comm comm, Result* result) {
  *result = worldOf(comm)->state;
  return Result::Success;
}

EXPORTED Result ncclGroupStart() {
  groupDepth++;
  return Result::Success;
}

EXPORTED Result ncclGroupEnd() {
  if (groupDepth == 0) return fail(Result::InvalidUsage, "ncclGroupEnd without ncclGroupStart");
  if (--groupDepth == 0) flushGroup();
  return Result::Success;
}

EXPORTED Result ncclSend(const void* data, size_t count, DataType type, int other, Comm comm, Stream stream) {
  return add(true, const_cast<void*>(data), count, type, other, comm, stream);
}

EXPORTED Result ncclRecv(void* data, size_t count, DataType type, int other, Comm comm, Stream stream) {
  return add(false, data, count, type, other, comm, stream);
}

EXPORTED Result ncclAllGather(const void* from, void* to, size_t count, DataType type, Comm comm, Stream stream) {
  auto operation = std::make_unique<Operation>();
  operation->world = worldOf(comm);
  const size_t bytes = count * bytesOf(type);
  const auto at = [&](int rank) { return static_cast<char*>(to) + static_cast<size_t>(rank) * bytes; };
  const int own = operation->world->rank;
  for (int other = 0; other < operation->world->size; other++) {
    if (other == own) continue;
    operation->transfers.push_back({true, other, static_cast<char*>(const_cast<void*>(from)), bytes});
    operation->transfers.push_back({false, other, at(other), bytes});
  }
  if (from != at(own)) {
    operation->copyFrom = from;
    operation->copyTo = at(own);
    operation->copyBytes = bytes;
  }
  enqueue(stream, std::move(operation));
  return Result::Success;
}
