// Groups over several processes: here every process (a node, or a rank) is a thread with a group of its own, and they meet
// through the network.
#include <algorithm>
#include <atomic>
#include <thread>

#include "checks.h"

namespace selftest {

namespace {

/** Runs `body(process)` on a thread per process; rethrows the failures. */
void onEveryProcess(int processes, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  std::vector<std::string> failures(static_cast<size_t>(processes));
  for (int process = 0; process < processes; process++) {
    threads.emplace_back([&, process] {
      try {
        body(process);
      } catch (const std::exception& error) {
        failures[static_cast<size_t>(process)] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  // All of them: one process's failure is often another's timeout.
  std::string all;
  for (int process = 0; process < processes; process++) {
    const std::string& failure = failures[static_cast<size_t>(process)];
    if (!failure.empty()) all += "process " + std::to_string(process) + ": " + failure + "\n  ";
  }
  if (!all.empty()) throw Mismatch(all);
}

/** Sizes of a group: ranks, and how many of them a node and a process hold. */
struct Sizes {
  int ranks;
  int perNode;
  int perProcess;
  int processes() const { return ranks / perProcess; }
};

std::unique_ptr<Group> makeGroup(const Sizes& sizes, int process, const std::vector<uint8_t>& id, int64_t deadlineMs = 20000) {
  std::vector<int32_t> local;
  for (int i = 0; i < sizes.perProcess; i++) local.push_back(process * sizes.perProcess + i);
  fa2a_group_options options = {};
  options.num_ranks = sizes.ranks;
  options.ranks_per_node = sizes.perNode;
  options.num_local_ranks = sizes.perProcess;
  options.local_ranks = local.data();
  options.network_id = id.data();
  options.network_id_bytes = static_cast<int64_t>(id.size());
  // Timed and not: a step for each other place, or all in one. Both at once must go together.
  options.record_timings = process % 2;
  options.deadline_ms = deadlineMs;
  return std::make_unique<Group>(options);
}

std::vector<uint8_t> makeId(const Sizes& sizes) {
  std::vector<uint8_t> id(static_cast<size_t>(fa2a_network_id_bytes(sizes.ranks, sizes.perNode, sizes.perProcess)));
  FA2A_CALL(fa2a_network_id, sizes.ranks, sizes.perNode, sizes.perProcess, id.data());
  return id;
}

template <class T>
std::vector<T> slice(const std::vector<T>& all, int process, int each) {
  if (all.empty()) return {};
  return {all.begin() + process * each, all.begin() + (process + 1) * each};
}

/** The arrays of one process's ranks; the memory stays with `all`. */
Inputs sliceInputs(const Inputs& all, int process, int each) {
  Inputs part;
  part.xArrays = slice(all.xArrays, process, each);
  part.scaleArrays = slice(all.scaleArrays, process, each);
  part.idArrays = slice(all.idArrays, process, each);
  part.weightArrays = slice(all.weightArrays, process, each);
  return part;
}

void append(Plane& to, Plane&& from) {
  for (Tensor& tensor : from.tensors) to.tensors.push_back(std::move(tensor));
}

/** The results of all processes as those of one group. */
Dispatched joined(std::vector<Dispatched>& parts) {
  Dispatched all;
  for (Dispatched& part : parts) {
    FA2A_CALL(fa2a_event_wait, part.event.get());
    append(all.x, std::move(part.x));
    append(all.scales, std::move(part.scales));
    append(all.ids, std::move(part.ids));
    append(all.weights, std::move(part.weights));
    append(all.probs, std::move(part.probs));
  }
  all.event = std::move(parts[0].event);
  return all;
}

/** Rows of one rank by the layout's own arithmetic. */
struct Traffic {
  int64_t sent = 0, relayed = 0;
  int64_t linked = 0, returned = 0;
};

std::vector<Traffic> layoutTraffic(const reference::Case& test) {
  const int perNode = test.ranksPerNode, perRank = test.experts / test.ranks;
  std::vector<Traffic> traffic(static_cast<size_t>(test.ranks));
  for (int src = 0; src < test.ranks; src++) {
    for (int token = 0; token < test.tokens[static_cast<size_t>(src)]; token++) {
      std::vector<bool> on(static_cast<size_t>(test.ranks), false);
      for (int slot = 0; slot < test.topk; slot++) {
        const int id = test.ids[static_cast<size_t>(src)][static_cast<size_t>(token * test.topk + slot)];
        if (id >= 0) on[static_cast<size_t>(id / perRank)] = true;
      }
      for (int node = 0; node < test.ranks / perNode; node++) {
        // Who brings the row to the ranks of the node: the source itself, or the rank with its index.
        const int holder = node * perNode + src % perNode;
        bool any = false;
        for (int dst = node * perNode; dst < (node + 1) * perNode; dst++) {
          if (!on[static_cast<size_t>(dst)]) continue;
          any = true;
          if (dst == holder) continue;
          traffic[static_cast<size_t>(holder)].linked++;
          traffic[static_cast<size_t>(dst)].returned++;
        }
        if (!any || holder == src) continue;
        traffic[static_cast<size_t>(src)].sent++;
        traffic[static_cast<size_t>(holder)].relayed++;
      }
    }
  }
  return traffic;
}

/** What crossed, counted by the library, against the layout. Rows that a budget cut cross hosts but no link. */
void checkTraffic(const reference::Case& test, const Sizes& sizes, const std::vector<std::unique_ptr<Group>>& groups,
                  std::vector<fa2a_network_info>& before, int64_t combineColumnsBytes) {
  const std::vector<Traffic> traffic = layoutTraffic(test);
  const int64_t dispatchBytes = test.hidden * reference::elementBytes(test.dtype) + test.scaleColumns * 4;
  const int64_t metadataBytes = 4 * (2 + 3 * test.topk);
  const bool cut = test.worstTokens > 0 || test.permutedTokens >= 0;
  // Hybrid-ep's probs come over links one by one, beside the rows.
  const int64_t linkColumnsBytes = combineColumnsBytes - (test.kind == FA2A_FUSED ? 0 : 4 * test.topk);
  for (int rank = 0; rank < test.ranks; rank++) {
    const auto r = static_cast<size_t>(rank);
    fa2a_network_info now;
    FA2A_CALL(fa2a_group_network, groups[r / static_cast<size_t>(sizes.perProcess)]->get(), rank % sizes.perProcess, &now);
    const auto expect = [&](const char* what, int64_t wanted, int64_t got) {
      if (wanted == got) return;
      throw Mismatch(std::string(what) + " of rank " + std::to_string(rank) + ": " + std::to_string(got) + ", expected " +
                     std::to_string(wanted));
    };
    const Traffic& own = traffic[r];
    expect("rows dispatched", own.sent, now.rows_dispatched - before[r].rows_dispatched);
    expect("rows combined", own.relayed, now.rows_combined - before[r].rows_combined);
    expect("row bytes", own.sent * dispatchBytes + own.relayed * combineColumnsBytes, now.row_bytes - before[r].row_bytes);
    expect("metadata bytes", own.sent * metadataBytes, now.metadata_bytes - before[r].metadata_bytes);
    if (!cut) {
      expect("link rows dispatched", own.linked, now.link_rows_dispatched - before[r].link_rows_dispatched);
      expect("link rows combined", own.returned, now.link_rows_combined - before[r].link_rows_combined);
      expect("link bytes", own.linked * dispatchBytes + own.returned * linkColumnsBytes, now.link_bytes - before[r].link_bytes);
    }
    before[r] = now;
  }
}

void checkOne(const Sizes& sizes, const std::vector<std::unique_ptr<Group>>& groups, reference::Case test, Random& random,
              std::vector<fa2a_network_info>& before) {
  const int processes = sizes.processes(), each = sizes.perProcess;
  const reference::Layout layout = reference::layout(test);
  const bool wide = random.once(2);
  fa2a_stream_options stream = {};
  stream.async_finish = random.once(2);
  std::vector<Dispatched> parts(groups.size());
  std::vector<Handle> handles(groups.size());
  const auto dispatchAll = [&](const Inputs& inputs, bool cached) {
    onEveryProcess(processes, [&](int process) {
      const auto p = static_cast<size_t>(process);
      const Inputs own = sliceInputs(inputs, process, each);
      parts[p] = dispatch(groups[p]->get(), test, own, cached ? handles[p].get() : nullptr, stream);
      FA2A_CALL(fa2a_event_wait, parts[p].event.get());
    });
    for (size_t p = 0; p < groups.size() && !cached; p++) handles[p] = std::move(parts[p].handle);
    checkDispatched(test, layout, joined(parts), wide, !cached);
  };
  const auto combineAll = [&](bool specials) {
    const CombineInput back = drawCombine(test, layout, random, specials);
    const CombineArrays arrays = arraysOf(test, back);
    std::vector<Combined> sums(groups.size());
    onEveryProcess(processes, [&](int process) {
      const auto p = static_cast<size_t>(process);
      std::vector<std::vector<fa2a_array>> bias;
      for (const auto& one : arrays.bias) bias.push_back(slice(one, process, each));
      sums[p] = combine(groups[p]->get(), handles[p].get(), slice(arrays.x, process, each), slice(arrays.weights, process, each),
                        slice(arrays.probs, process, each), bias, stream);
      FA2A_CALL(fa2a_event_wait, sums[p].event.get());
    });
    Combined all;
    for (Combined& part : sums) {
      append(all.x, std::move(part.x));
      append(all.weights, std::move(part.weights));
      append(all.probs, std::move(part.probs));
    }
    all.event = std::move(sums[0].event);
    checkCombined(test, layout, back, all);
    // Weights or probs cross beside the rows, topk words for each.
    return test.hidden * reference::elementBytes(back.dtype) + 4 * test.topk;
  };
  Inputs inputs = makeInputs(groups[0]->get(), test, false, wide);
  dispatchAll(inputs, false);
  for (int process = 0; process < processes; process++) {
    checkHandle(test, layout, handles[static_cast<size_t>(process)].get(), process * each, each);
  }
  const int64_t combineBytes = combineAll(true);
  checkTraffic(test, sizes, groups, before, combineBytes);
  redrawRows(random, test, true);
  inputs = makeInputs(groups[0]->get(), test, false, wide);
  dispatchAll(inputs, true);
  combineAll(true);
  for (size_t r = 0; r < before.size(); r++) {
    FA2A_CALL(fa2a_group_network, groups[r / static_cast<size_t>(each)]->get(), static_cast<int>(r) % each, &before[r]);
  }
}

/** Calls `body` and wants this code and these words. */
void expectFailure(const char* what, fa2a_code wanted, const char* words, const std::function<fa2a_code(fa2a_error*)>& body) {
  fa2a_error error = {};
  const fa2a_code code = body(&error);
  if (code == wanted && std::string(error.message).find(words) != std::string::npos) return;
  throw Mismatch(std::string(what) + ": code " + std::to_string(code) + ", message '" + error.message + "', expected code " +
                 std::to_string(wanted) + " and '" + words + "'");
}

/** A bad id in routing that is on a device: every process says whose it is, and the group goes on. */
void checkBadId(const Sizes& sizes, const std::vector<std::unique_ptr<Group>>& groups, Random& random) {
  reference::Case test = randomCase(random, sizes.ranks, sizes.perNode, 20, false);
  test.kind = FA2A_FUSED;
  for (int rank = 0; rank < sizes.ranks; rank++) {
    const auto r = static_cast<size_t>(rank);
    test.tokens[r] = 3;
    test.ids[r].assign(static_cast<size_t>(3 * test.topk), -1);
    test.weights[r].assign(static_cast<size_t>(3 * test.topk), 0);
    test.x[r].assign(static_cast<size_t>(3 * test.hidden * reference::elementBytes(test.dtype)), 0);
    if (!test.scales.empty()) test.scales[r].assign(static_cast<size_t>(3 * test.scaleColumns * 4), 0);
  }
  const auto bad = static_cast<size_t>(sizes.ranks - 1);
  test.ids[bad][static_cast<size_t>(2 * test.topk)] = test.experts + 7;
  const Inputs inputs = makeInputs(groups[0]->get(), test, false, false);
  onEveryProcess(sizes.processes(), [&](int process) {
    std::string text;
    try {
      dispatch(groups[static_cast<size_t>(process)]->get(), test, sliceInputs(inputs, process, sizes.perProcess), nullptr, {});
    } catch (const std::exception& error) {
      text = error.what();
    }
    const bool own = process == sizes.processes() - 1;
    const std::string where = " at rank " + std::to_string(bad) + ", token 2, slot 0";
    const std::string wanted = "received " + (own ? std::to_string(test.experts + 7) : std::string("another expert id")) + where;
    if (text.find(wanted) == std::string::npos) throw Mismatch("bad id: '" + text + "', expected '" + wanted + "'");
  });
}

}  // namespace

void checkNodes(int nodes, int perNode, int perProcess, int cases, Random& random, int maxTokens, bool cutting) {
  const Sizes sizes = {nodes * perNode, perNode, perProcess};
  const std::vector<uint8_t> id = makeId(sizes);
  std::vector<std::unique_ptr<Group>> groups(static_cast<size_t>(sizes.processes()));
  onEveryProcess(sizes.processes(), [&](int process) {
    groups[static_cast<size_t>(process)] = makeGroup(sizes, process, id);
    FA2A_CALL(fa2a_group_connect, groups[static_cast<size_t>(process)]->get());
  });
  std::vector<fa2a_network_info> before(static_cast<size_t>(sizes.ranks));
  for (int i = 0; i < cases; i++) {
    if (i == 1) checkBadId(sizes, groups, random);
    reference::Case test = randomCase(random, sizes.ranks, perNode, maxTokens, true);
    if (cutting && test.kind == FA2A_FUSED) test.worstTokens = maxTokens / 2;
    if (cutting && test.kind == FA2A_HYBRID_EP) test.permutedTokens = maxTokens / test.padMultiple * test.padMultiple;
    try {
      checkOne(sizes, groups, test, random, before);
    } catch (const std::exception& error) {
      throw Mismatch(std::to_string(nodes) + " nodes of " + std::to_string(perNode) + ", " + std::to_string(perProcess) +
                     " ranks per process, case " + std::to_string(i) + ": " + error.what() + "\n  " + describe(test));
    }
  }
  onEveryProcess(sizes.processes(), [&](int process) { groups[static_cast<size_t>(process)].reset(); });
}

/** Making a group on emulated devices sets their machine anew: another group's operations that wait for a process go on. */
void checkConfigured() {
  if (fa2a_is_emulated() == 0) return;
  const Sizes sizes = {2, 1, 1};
  const std::vector<uint8_t> id = makeId(sizes);
  std::vector<std::unique_ptr<Group>> groups(2);
  onEveryProcess(2, [&](int process) { groups[static_cast<size_t>(process)] = makeGroup(sizes, process, id, 3000); });
  onEveryProcess(2, [&](int process) {
    if (process == 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      const fa2a_emulation machine = {};
      FA2A_CALL(fa2a_emulation_configure, &machine);
    }
    FA2A_CALL(fa2a_group_connect, groups[static_cast<size_t>(process)]->get());
  });
}

void checkNodeFailures() {
  const Sizes sizes = {4, 2, 2};
  const std::vector<uint8_t> id = makeId(sizes);
  // The other node never comes.
  expectFailure("absent node", FA2A_TIMEOUT, "received none; look at them", [&](fa2a_error* error) {
    const int32_t local[] = {0, 1};
    fa2a_group_options options = {};
    options.num_ranks = 4;
    options.ranks_per_node = 2;
    options.num_local_ranks = 2;
    options.local_ranks = local;
    options.network_id = id.data();
    options.network_id_bytes = static_cast<int64_t>(id.size());
    options.deadline_ms = 200;
    fa2a_group* group = nullptr;
    FA2A_CALL(fa2a_group_create, &options, &group);
    const fa2a_code code = fa2a_group_connect(group, error);
    fa2a_group_close(group, nullptr);
    return code;
  });
  Random random(5);
  const reference::Case test = randomCase(random, 4, 2, 20, false);
  for (const char* how : {"stopped", "closed", "aborted"}) {
    const std::vector<uint8_t> fresh = makeId(sizes);
    std::vector<std::unique_ptr<Group>> groups(2);
    onEveryProcess(2, [&](int node) {
      groups[static_cast<size_t>(node)] = makeGroup(sizes, node, fresh);
      FA2A_CALL(fa2a_group_connect, groups[static_cast<size_t>(node)]->get());
    });
    fa2a_group_options deadline = {};
    deadline.deadline_ms = 400;
    FA2A_CALL(fa2a_group_configure, groups[0]->get(), &deadline);
    const Inputs inputs = makeInputs(groups[0]->get(), test, false, false);
    const Inputs own = sliceInputs(inputs, 0, 2);
    std::thread other;
    const std::string mode = how;
    if (mode == "closed") groups[1].reset();
    if (mode == "aborted") {
      other = std::thread([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        fa2a_group_abort(groups[0]->get(), "the caller's reason", nullptr);
      });
    }
    const bool late = mode == "stopped";
    std::string text;
    try {
      dispatch(groups[0]->get(), test, own, nullptr, {});
    } catch (const std::exception& error) {
      text = error.what();
    }
    if (other.joinable()) other.join();
    const std::string wanted = late ? ", counts: expects " : mode == "closed" ? "closed by remote rank" : "the caller's reason";
    if (text.find(wanted) == std::string::npos) throw Mismatch(mode + ": received '" + text + "', expected '" + wanted + "'");
    fa2a_memory_info memory;
    fa2a_error error = {};
    expectFailure("after a failure", FA2A_BACKEND_FAILURE, "close it", [&](fa2a_error* failed) {
      return fa2a_group_synchronize(groups[0]->get(), failed);
    });
    if (fa2a_group_memory(groups[0]->get(), 0, &memory, &error) == FA2A_OK && memory.reserved != 0) {
      throw Mismatch(mode + ": communication memory is still held");
    }
  }
}

}  // namespace selftest
