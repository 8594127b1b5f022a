// A stand-in for libnccl in the emulated build: the same functions, over TCP sockets between processes of one machine, or of
// its network namespaces. Operations are operations of the emulated streams and move on when these run; like the real ones
// they wait for ever for a process that stopped, and end when the communicator is aborted. It carries bytes and checks
// sizes, nothing else: no topology, and no speed but what FUSED_A2A_EMULATED_LINK says (docs/clusters.md).
#include <arpa/inet.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
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

/** Where a process listens: address and port as they go into a sockaddr_in. */
struct Endpoint {
  uint32_t address = 0;
  uint16_t port = 0;

  sockaddr_in socketAddress() const {
    sockaddr_in made = {};
    made.sin_family = AF_INET;
    made.sin_addr.s_addr = address;
    made.sin_port = port;
    return made;
  }
  std::string text() const {
    char buffer[INET_ADDRSTRLEN] = "";
    inet_ntop(AF_INET, &address, buffer, sizeof buffer);
    return std::string(buffer) + ":" + std::to_string(ntohs(port));
  }
};

/** What lies in a UniqueId: where the first process of the communicator listens. */
struct Root {
  uint32_t magic;
  Endpoint at;
};

std::vector<std::string> partsOf(const std::string& text, char separator) {
  std::vector<std::string> parts;
  for (size_t from = 0; from <= text.size();) {
    const size_t to = std::min(text.find(separator, from), text.size());
    parts.push_back(text.substr(from, to - from));
    from = to + 1;
  }
  return parts;
}

/** Whether NCCL_SOCKET_IFNAME takes the interface: prefixes; "=" before them means whole names, "^" all others. */
bool chosen(const std::string& variable, const std::string& name) {
  const bool others = variable[0] == '^';
  const size_t mark = others ? 1 : 0;
  const bool whole = variable.size() > mark && variable[mark] == '=';
  for (const std::string& part : partsOf(variable.substr(mark + (whole ? 1 : 0)), ',')) {
    if (!part.empty() && (whole ? name == part : name.rfind(part, 0) == 0)) return !others;
  }
  return others;
}

/** The address to listen on: loopback, or that of the first interface that NCCL_SOCKET_IFNAME takes. Empty text = found. */
std::string ownAddress(uint32_t& address) {
  const char* variable = std::getenv("NCCL_SOCKET_IFNAME");
  address = htonl(INADDR_LOOPBACK);
  if (variable == nullptr || variable[0] == 0) return "";
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return "the network interfaces cannot be listed";
  std::string names;
  bool found = false;
  for (const ifaddrs* one = list; one != nullptr && !found; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != AF_INET || (one->ifa_flags & IFF_UP) == 0) continue;
    names.append(names.empty() ? "" : ", ").append(one->ifa_name);
    found = chosen(variable, one->ifa_name);
    if (found) address = reinterpret_cast<const sockaddr_in*>(one->ifa_addr)->sin_addr.s_addr;
  }
  freeifaddrs(list);
  return found ? "" : "no interface is up and taken by NCCL_SOCKET_IFNAME=" + std::string(variable) + " (up: " + names + ")";
}

/** How what this process sends to another is slowed down, or cut, for tests. */
struct Link {
  int64_t delayUs = 0;
  double bytesPerUs = 0;  // 0 = unlimited
  int64_t closeAfterBytes = -1;
};

constexpr const char* LINK_VARIABLE = "FUSED_A2A_EMULATED_LINK";

/** "src-dst:delayUs[:MBps[:closeAfterBytes]],...": links by (source, destination), ranks of a communicator. */
std::string parseLinks(std::map<std::pair<int, int>, Link>& links) {
  const char* variable = std::getenv(LINK_VARIABLE);
  if (variable == nullptr || variable[0] == 0) return "";
  for (const std::string& entry : partsOf(variable, ',')) {
    int src = -1, dst = -1, used = 0;
    long long delayUs = 0, closeAfter = -1;
    double megabytes = 0;
    const int found = std::sscanf(entry.c_str(), "%d-%d:%lld%n:%lf%n:%lld%n", &src, &dst, &delayUs, &used, &megabytes, &used,
                                  &closeAfter, &used);
    if (found < 3 || static_cast<size_t>(used) != entry.size() || src < 0 || dst < 0 || delayUs < 0 || megabytes < 0) {
      return std::string(LINK_VARIABLE) + ": expected src-dst:delayUs[:MBps[:closeAfterBytes]], received " + entry;
    }
    links[{src, dst}] = {delayUs, megabytes, closeAfter};
  }
  return "";
}

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

Socket listenOn(uint32_t host, Endpoint& at) {
  Socket server(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  at = {host, 0};
  sockaddr_in address = at.socketAddress();
  socklen_t length = sizeof address;
  if (bind(server.fd, reinterpret_cast<sockaddr*>(&address), length) != 0 || listen(server.fd, 128) != 0) return {};
  getsockname(server.fd, reinterpret_cast<sockaddr*>(&address), &length);
  at.port = address.sin_port;
  return server;
}

/** Connects while `wanted()`: a link that is down answers nothing. */
template <class F>
Socket dial(const Endpoint& at, F wanted) {
  Socket one(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const sockaddr_in address = at.socketAddress();
  if (connect(one.fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    if (errno != EINPROGRESS) return {};
    pollfd ready = {one.fd, POLLOUT, 0};
    while (poll(&ready, 1, 20) == 0) {
      if (!wanted()) return {};
    }
    int problem = 0;
    socklen_t length = sizeof problem;
    if (getsockopt(one.fd, SOL_SOCKET, SO_ERROR, &problem, &length) != 0 || problem != 0) return {};
  }
  fcntl(one.fd, F_SETFL, fcntl(one.fd, F_GETFL) & ~O_NONBLOCK);
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
  Endpoint at;
};

/** The roots of this process's ids; each serves one communicator: collects its members and tells all where all are. */
void serve(Socket server) {
  std::thread([server = std::move(server)] {
    std::vector<Socket> members;
    std::vector<Endpoint> places;
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
        places.resize(hello.size);
      }
      if (hello.size != members.size() || members[hello.rank].fd >= 0) continue;
      members[hello.rank] = std::move(one);
      places[hello.rank] = hello.at;
      here++;
    }
    for (const Socket& member : members) sendAll(member, places.data(), places.size() * sizeof(Endpoint));
  }).detach();
}

}  // namespace

struct nccl::CommOpaque {};

namespace {

using Clock = std::chrono::steady_clock;

/** A link of this process and what has gone over it. */
struct Pace {
  Link link;
  Clock::time_point freeAt = {};
  int64_t sent = 0;
};

struct World {
  int rank = 0;
  int size = 0;
  /** By rank; our own has none. */
  std::vector<Socket> links;
  /** By rank: how sends to it are slowed down; absent = not at all. */
  std::map<int, Pace> paces;
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
  uint32_t own = 0;
  const std::string why = ownAddress(own);
  if (!why.empty()) return world->broken(Result::SystemError, why);
  Endpoint at;
  const Socket server = listenOn(own, at);
  const Socket toRoot = dial(root.at, wanted);
  const Hello hello = {MAGIC, static_cast<uint32_t>(world->rank), static_cast<uint32_t>(world->size), at};
  std::vector<Endpoint> places(static_cast<size_t>(world->size));
  if (server.fd < 0 || toRoot.fd < 0 || !sendAll(toRoot, &hello, sizeof hello) ||
      !receiveAll(toRoot, places.data(), places.size() * sizeof(Endpoint), wanted)) {
    return world->broken(Result::SystemError, "the root of the communicator does not answer at " + root.at.text());
  }
  for (int other = 0; other < world->rank; other++) {
    const Endpoint& where = places[static_cast<size_t>(other)];
    Socket link = dial(where, wanted);
    if (link.fd < 0 || !sendAll(link, &hello, sizeof hello)) {
      return world->broken(Result::RemoteError, "rank " + std::to_string(other) + " does not answer at " + where.text());
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
  /** When it was first tried, for links with a delay. */
  Clock::time_point begun = {};

  bool finished() const { return done == bytes + sizeof header; }
};

struct Operation {
  std::shared_ptr<World> world;
  std::vector<Transfer> transfers;
  /** Own part of a collective. */
  const void* copyFrom = nullptr;
  void* copyTo = nullptr;
  size_t copyBytes = 0;

  /** How many of `left` bytes a slow link takes now; closes it where a test says so. */
  size_t paced(Transfer& one, Pace& pace, size_t left) {
    const auto now = Clock::now();
    if (one.begun == Clock::time_point{}) one.begun = now;
    if (now < one.begun + std::chrono::microseconds(pace.link.delayUs) || now < pace.freeAt) return 0;
    if (pace.link.closeAfterBytes >= 0 && pace.sent >= pace.link.closeAfterBytes) {
      shutdown(world->links[static_cast<size_t>(one.other)].fd, SHUT_RDWR);
      return left;
    }
    // About a millisecond's worth at a time: operations are looked at every 200 us.
    size_t most = left;
    if (pace.link.bytesPerUs > 0) most = std::min(most, std::max<size_t>(64, static_cast<size_t>(pace.link.bytesPerUs * 1000)));
    if (pace.link.closeAfterBytes >= 0) most = std::min(most, static_cast<size_t>(pace.link.closeAfterBytes - pace.sent));
    return most;
  }

  void sent(Pace& pace, size_t bytes) {
    pace.sent += static_cast<int64_t>(bytes);
    if (pace.link.bytesPerUs <= 0) return;
    const auto time = std::chrono::nanoseconds(static_cast<int64_t>(static_cast<double>(bytes) / pace.link.bytesPerUs * 1000));
    // What waited a little too long for its turn may catch up.
    pace.freeAt = std::max(pace.freeAt, Clock::now() - std::chrono::milliseconds(2)) + time;
  }

  /** Moves a transfer on. False when the connection is broken. */
  bool advance(Transfer& one) {
    const int fd = world->links[static_cast<size_t>(one.other)].fd;
    const auto slow = world->paces.find(one.other);
    Pace* pace = one.send && slow != world->paces.end() ? &slow->second : nullptr;
    while (!one.finished()) {
      const bool inHeader = one.done < sizeof one.header;
      if (one.send && inHeader) one.header = one.bytes;
      char* at = inHeader ? reinterpret_cast<char*>(&one.header) + one.done : one.data + (one.done - sizeof one.header);
      size_t left = inHeader ? sizeof one.header - one.done : one.bytes + sizeof one.header - one.done;
      if (pace != nullptr && (left = paced(one, *pace, left)) == 0) return true;
      const ssize_t moved = one.send ? ::send(fd, at, left, MSG_NOSIGNAL) : ::recv(fd, at, left, 0);
      if (moved < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return true;
      if (moved <= 0) {
        world->broken(Result::RemoteError, "connection closed by remote rank " + std::to_string(one.other));
        return false;
      }
      one.done += static_cast<uint64_t>(moved);
      if (pace != nullptr) sent(*pace, static_cast<size_t>(moved));
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
  Root root = {MAGIC, {}};
  uint32_t own = 0;
  const std::string why = ownAddress(own);
  if (!why.empty()) return fail(Result::SystemError, why);
  Socket server = listenOn(own, root.at);
  if (server.fd < 0) return fail(Result::SystemError, "cannot listen on " + root.at.text());
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
  std::map<std::pair<int, int>, Link> links;
  const std::string why = parseLinks(links);
  if (!why.empty()) return fail(Result::InvalidArgument, why);
  auto* handle = new Handle;
  handle->world = std::make_shared<World>();
  for (const auto& [pair, link] : links) {
    if (pair.first == rank) handle->world->paces[pair.second].link = link;
  }
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
