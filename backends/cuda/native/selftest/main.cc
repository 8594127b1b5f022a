// The native self-test: the library against the reference, without Node; for sanitizers, profilers and GPUs.
//
//   selftest check [--cases N] [--seed S] [--ranks R] [--devices D] [--tokens T]     random cases, every operation
//   selftest stress [--seeds N] [--seed S] [--weak 1]     emulated build: shuffled schedules, poison, one slow device
//   selftest graph                                        capture and replay
//   selftest deadline                                     emulated build: a device that stops
//   selftest nodes [--shuffled 1]                         groups over several processes (threads here), through NCCL
//   selftest bench [--tokens 4096 --hidden 7168 --topk 8 --experts 256 ...]          times of every kernel (a GPU)
//   selftest devices                                      what is there
#include <cstdlib>
#include <cstring>
#include <map>

#include "bench.h"
#include "checks.h"

using namespace selftest;

namespace {

using Options = std::map<std::string, int64_t>;

int64_t option(const Options& options, const char* name, int64_t fallback) {
  const auto found = options.find(name);
  return found == options.end() ? fallback : found->second;
}

bool emulated() { return fa2a_is_emulated() != 0; }

void configure(const fa2a_emulation& machine) {
  if (emulated()) FA2A_CALL(fa2a_emulation_configure, &machine);
}

fa2a_group_options groupOptions(int ranks, int ranksPerNode, const std::vector<int32_t>& devices) {
  fa2a_group_options options = {};
  options.num_ranks = ranks;
  options.ranks_per_node = ranksPerNode;
  options.devices = devices.empty() ? nullptr : devices.data();
  return options;
}

int numDevices() {
  fa2a_driver_info info;
  FA2A_CALL(fa2a_driver, &info);
  if (info.state != FA2A_DRIVER_USABLE) throw std::runtime_error(info.message);
  return info.num_devices;
}

int pickRanks(Random& random, const Options& options) {
  const auto fixed = static_cast<int>(option(options, "ranks", 0));
  return fixed > 0 ? fixed : random.pick({1, 2, 3, 4, 6, 8, 8, 12});
}

int pickPerNode(Random& random, int ranks) {
  if (random.once(2)) return ranks;
  int perNode = 1 + static_cast<int>(random.below(ranks));
  while (ranks % perNode != 0) perNode--;
  return perNode;
}

/** Groups are kept for a few cases, so that memory is reused between them. */
void runCases(uint64_t seed, int cases, const Options& options, bool backToBack) {
  Random random(seed);
  const int ranks = pickRanks(random, options), perNode = pickPerNode(random, ranks);
  const int available = numDevices();
  std::vector<int32_t> devices;
  if (random.once(2)) {
    for (int rank = 0; rank < ranks; rank++) devices.push_back(static_cast<int32_t>(random.below(available)));
  }
  const Group group(groupOptions(ranks, perNode, devices));
  CheckOptions check;
  check.maxTokens = static_cast<int>(option(options, "tokens", 40));
  for (int i = 0; i < cases; i++) {
    check.pull = random.once(3);
    const reference::Case test = randomCase(random, ranks, perNode, check.maxTokens, check.specials);
    try {
      checkCase(group.get(), test, random, check);
    } catch (const std::exception& error) {
      throw Mismatch(std::string(error.what()) + "\n  case " + std::to_string(i) + (check.pull ? " pull " : " push ") + describe(test));
    }
  }
  checkCasts(group.get(), ranks, random);
  if (backToBack) {
    check.maxTokens = std::min(check.maxTokens, 24);
    check.pull = random.once(3);
    checkBackToBack(group.get(), ranks, perNode, static_cast<int>(option(options, "operations", 100)), random, check);
  }
}

int check(const Options& options) {
  const auto seed = static_cast<uint64_t>(option(options, "seed", 1));
  const int64_t groups = option(options, "groups", 12);
  const auto cases = static_cast<int>(option(options, "cases", 8));
  for (int64_t i = 0; i < groups; i++) {
    fa2a_emulation machine = {};
    machine.num_devices = static_cast<int32_t>(option(options, "devices", 1 + i % 8));
    machine.compute_major = i % 2 == 0 ? 9 : 8;
    machine.poison = 1;
    configure(machine);
    try {
      runCases(seed + static_cast<uint64_t>(i), cases, options, true);
    } catch (const std::exception& error) {
      std::printf("FAIL group seed %llu: %s\n", static_cast<unsigned long long>(seed + static_cast<uint64_t>(i)), error.what());
      return 1;
    }
  }
  configure({});
  const Group group(groupOptions(4, 4, {}));
  checkRefusals(group.get(), 4);
  std::printf("check: %lld groups of %d cases and a run of back-to-back operations each: all equal\n", static_cast<long long>(groups), cases);
  return 0;
}

int stress(const Options& options) {
  if (!emulated()) throw std::runtime_error("stress needs the emulated build: schedules of a GPU cannot be chosen");
  const auto first = static_cast<uint64_t>(option(options, "seed", 1));
  const auto seeds = static_cast<uint64_t>(option(options, "seeds", 20));
  const auto cases = static_cast<int>(option(options, "cases", 2));
  int failed = 0;
  for (uint64_t seed = first; seed < first + seeds; seed++) {
    fa2a_emulation machine = {};
    machine.num_devices = static_cast<int32_t>(1 + seed % 8);
    machine.num_sms = 3;
    machine.compute_major = seed % 2 == 0 ? 9 : 8;
    machine.seed = seed;
    machine.weak_stores = static_cast<int32_t>(option(options, "weak", static_cast<int64_t>(seed % 3 != 0)));
    machine.slow_device = static_cast<int32_t>(seed % static_cast<uint64_t>(machine.num_devices + 1));
    machine.poison = 1;
    configure(machine);
    try {
      runCases(seed * 977 + 3, cases, options, true);
    } catch (const std::exception& error) {
      failed++;
      std::printf("FAIL seed %llu: %s\n", static_cast<unsigned long long>(seed), error.what());
      if (option(options, "keep", 0) == 0) return 1;
    }
  }
  std::printf("stress: %d of %llu seeds failed\n", failed, static_cast<unsigned long long>(seeds));
  return failed > 0;
}

int graphs(const Options& options) {
  for (const int ranks : {1, 2, 8}) {
    configure({});
    Random random(static_cast<uint64_t>(option(options, "seed", 1)));
    const Group group(groupOptions(ranks, ranks, {}));
    for (const bool pull : {false, true}) {
      fa2a_group_options caps = {};
      caps.combine_path = pull ? FA2A_COMBINE_PULL : FA2A_COMBINE_PUSH;
      FA2A_CALL(fa2a_group_configure, group.get(), &caps);
      checkGraph(group.get(), ranks, ranks, random);
    }
  }
  std::printf("graph: captured and replayed on 1, 2 and 8 ranks, push and pull: all equal\n");
  return 0;
}

int deadlines() {
  if (!emulated()) throw std::runtime_error("deadline needs the emulated build: it stops a device");
  for (const int stalled : {0, 2, 3}) {
    configure({});
    fa2a_group_options options = groupOptions(4, 4, {});
    options.deadline_ms = 100;
    {
      const Group group(options);
      // The arenas are made while the device still answers.
      FA2A_CALL(fa2a_group_reserve, group.get(), 1 << 20);
      fa2a_emulation machine = {};
      machine.stalled_device = stalled + 1;
      configure(machine);
      checkDeadline(group.get(), stalled);
    }
    // The process goes on: another group on the same devices works.
    configure({});
    runCases(3, 1, {{"ranks", 4}}, false);
  }
  std::printf("deadline: a stopped device is named, the process goes on\n");
  return 0;
}

int nodes(const Options& options) {
  const auto seed = static_cast<uint64_t>(option(options, "seed", 1));
  const auto cases = static_cast<int>(option(options, "cases", 6));
  const auto maxTokens = static_cast<int>(option(options, "tokens", 40));
  struct Shape {
    int nodes, perNode, perProcess;
  };
  for (const auto& [count, perNode, perProcess] :
       {Shape{2, 4, 4}, {4, 2, 2}, {2, 1, 1}, {3, 2, 2}, {1, 4, 1}, {2, 2, 1}, {2, 4, 1}, {3, 2, 1}}) {
    fa2a_emulation machine = {};
    machine.poison = 1;
    machine.compute_major = perNode == 2 ? 8 : 9;
    if (option(options, "shuffled", 0) != 0) {
      machine.seed = seed;
      machine.weak_stores = 1;
    }
    configure(machine);
    Random random(seed * 31 + static_cast<uint64_t>(count));
    checkNodes(count, perNode, perProcess, cases, random, maxTokens);
  }
  Random random(seed);
  const auto large = static_cast<int>(option(options, "large", 1500));
  checkNodes(2, 2, 2, 1, random, large);
  checkNodes(2, 2, 1, 1, random, large);
  // What a budget cut is told by source and token, in whatever parts it came.
  checkNodes(3, 2, 2, 1, random, large, true);
  checkNodes(3, 2, 1, 2, random, large, true);
  configure({});
  checkConfigured();
  checkNodeFailures();
  std::printf("nodes: a process per node and per rank, up to 2x4 and 4x2 ranks, %d cases each, large ones and failures: all as expected\n", cases);
  return 0;
}

int devices() {
  fa2a_driver_info driver;
  FA2A_CALL(fa2a_driver, &driver);
  std::printf("%s\narchitectures %s\ncompiler %s\n", driver.message, driver.architectures, driver.compiler);
  for (int32_t i = 0; i < driver.num_devices; i++) {
    fa2a_device_info info;
    FA2A_CALL(fa2a_device, i, &info);
    std::printf("device %d: %s, sm_%d%d, %d SMs, %lld MiB\n", i, info.name, info.compute_major, info.compute_minor, info.num_sms,
                static_cast<long long>(info.total_bytes >> 20));
  }
  return driver.state == FA2A_DRIVER_USABLE ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const std::string command = argc > 1 ? argv[1] : "";
  Options options;
  for (int i = 2; i + 1 < argc; i += 2) {
    if (std::strncmp(argv[i], "--", 2) != 0) break;
    options[argv[i] + 2] = std::atoll(argv[i + 1]);
  }
  try {
    if (command == "check") return check(options);
    if (command == "stress") return stress(options);
    if (command == "graph") return graphs(options);
    if (command == "deadline") return deadlines();
    if (command == "nodes") return nodes(options);
    if (command == "devices") return devices();
    if (command == "bench") return bench(options);
    std::fprintf(stderr, "selftest: expected check, stress, graph, deadline, nodes, bench or devices, received '%s'\n", command.c_str());
    return 2;
  } catch (const std::exception& error) {
    std::printf("FAIL %s\n", error.what());
    return 1;
  }
}
