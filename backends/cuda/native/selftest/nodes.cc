// Groups over several processes: here every node is a thread with a group of its own, and they meet through the network.
#include <algorithm>
#include <atomic>
#include <thread>

#include "checks.h"

namespace selftest {

namespace {

/** Runs `body(node)` on a thread per node; rethrows the first failure. */
void onEveryNode(int nodes, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  std::vector<std::string> failures(static_cast<size_t>(nodes));
  for (int node = 0; node < nodes; node++) {
    threads.emplace_back([&, node] {
      try {
        body(node);
      } catch (const std::exception& error) {
        failures[static_cast<size_t>(node)] = error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  // All of them: one node's failure is often another's timeout.
  std::string all;
  for (int node = 0; node < nodes; node++) {
    const std::string& failure = failures[static_cast<size_t>(node)];
    if (!failure.empty()) all += "node " + std::to_string(node) + ": " + failure + "\n  ";
  }
  if (!all.empty()) throw Mismatch(all);
}

std::unique_ptr<Group> makeGroup(int nodes, int perNode, int node, const std::vector<uint8_t>& id, int64_t deadlineMs = 20000) {
  std::vector<int32_t> local;
  for (int i = 0; i < perNode; i++) local.push_back(node * perNode + i);
  fa2a_group_options options = {};
  options.num_ranks = nodes * perNode;
  options.ranks_per_node = perNode;
  options.num_local_ranks = perNode;
  options.local_ranks = local.data();
  options.network_id = id.data();
  options.network_id_bytes = static_cast<int64_t>(id.size());
  options.record_timings = 1;
  options.deadline_ms = deadlineMs;
  return std::make_unique<Group>(options);
}

std::vector<uint8_t> makeId(int perNode) {
  std::vector<uint8_t> id(static_cast<size_t>(perNode) * FA2A_NETWORK_ID_BYTES);
  FA2A_CALL(fa2a_network_id, perNode, id.data());
  return id;
}

template <class T>
std::vector<T> slice(const std::vector<T>& all, int node, int perNode) {
  if (all.empty()) return {};
  return {all.begin() + node * perNode, all.begin() + (node + 1) * perNode};
}

/** The arrays of one node's ranks; the memory stays with `all`. */
Inputs sliceInputs(const Inputs& all, int node, int perNode) {
  Inputs part;
  part.xArrays = slice(all.xArrays, node, perNode);
  part.scaleArrays = slice(all.scaleArrays, node, perNode);
  part.idArrays = slice(all.idArrays, node, perNode);
  part.weightArrays = slice(all.weightArrays, node, perNode);
  return part;
}

void append(Plane& to, Plane&& from) {
  for (Tensor& tensor : from.tensors) to.tensors.push_back(std::move(tensor));
}

/** The results of all nodes as those of one group. */
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

/** What the network carried: rows by the layout's own arithmetic. */
void checkTraffic(const reference::Case& test, const std::vector<std::unique_ptr<Group>>& groups,
                  std::vector<fa2a_network_info>& before, int64_t combineColumnsBytes, int64_t dispatches, int64_t combines) {
  const int perNode = test.ranksPerNode, perRank = test.experts / test.ranks;
  std::vector<int64_t> out(static_cast<size_t>(test.ranks)), in(out.size());
  for (int src = 0; src < test.ranks; src++) {
    for (int token = 0; token < test.tokens[static_cast<size_t>(src)]; token++) {
      std::vector<bool> on(static_cast<size_t>(test.ranks / perNode), false);
      for (int slot = 0; slot < test.topk; slot++) {
        const int id = test.ids[static_cast<size_t>(src)][static_cast<size_t>(token * test.topk + slot)];
        if (id >= 0) on[static_cast<size_t>(id / perRank / perNode)] = true;
      }
      for (size_t node = 0; node < on.size(); node++) {
        if (!on[node] || static_cast<int>(node) == src / perNode) continue;
        out[static_cast<size_t>(src)]++;
        in[node * static_cast<size_t>(perNode) + static_cast<size_t>(src % perNode)]++;
      }
    }
  }
  const int64_t dispatchBytes = test.hidden * reference::elementBytes(test.dtype) + test.scaleColumns * 4;
  const int64_t metadataBytes = 4 * (1 + 3 * test.topk);
  for (int rank = 0; rank < test.ranks; rank++) {
    const auto r = static_cast<size_t>(rank);
    fa2a_network_info now;
    FA2A_CALL(fa2a_group_network, groups[r / static_cast<size_t>(perNode)]->get(), rank % perNode, &now);
    const auto expect = [&](const char* what, int64_t wanted, int64_t got) {
      if (wanted == got) return;
      throw Mismatch(std::string(what) + " of rank " + std::to_string(rank) + ": " + std::to_string(got) + ", expected " +
                     std::to_string(wanted));
    };
    expect("rows dispatched", dispatches * out[r], now.rows_dispatched - before[r].rows_dispatched);
    expect("rows combined", combines * in[r], now.rows_combined - before[r].rows_combined);
    expect("row bytes", dispatches * out[r] * dispatchBytes + combines * in[r] * combineColumnsBytes,
           now.row_bytes - before[r].row_bytes);
    expect("metadata bytes", out[r] * metadataBytes, now.metadata_bytes - before[r].metadata_bytes);
    before[r] = now;
  }
}

void checkOne(const std::vector<std::unique_ptr<Group>>& groups, reference::Case test, Random& random,
              std::vector<fa2a_network_info>& before) {
  const int nodes = static_cast<int>(groups.size()), perNode = test.ranksPerNode;
  const reference::Layout layout = reference::layout(test);
  const bool wide = random.once(2);
  fa2a_stream_options stream = {};
  stream.async_finish = random.once(2);
  std::vector<Dispatched> parts(groups.size());
  std::vector<Handle> handles(groups.size());
  const auto dispatchAll = [&](const Inputs& inputs, bool cached) {
    onEveryNode(nodes, [&](int node) {
      const auto n = static_cast<size_t>(node);
      const Inputs own = sliceInputs(inputs, node, perNode);
      parts[n] = dispatch(groups[n]->get(), test, own, cached ? handles[n].get() : nullptr, stream);
      FA2A_CALL(fa2a_event_wait, parts[n].event.get());
    });
    for (size_t n = 0; n < groups.size() && !cached; n++) handles[n] = std::move(parts[n].handle);
    checkDispatched(test, layout, joined(parts), wide, !cached);
  };
  const auto combineAll = [&](bool specials) {
    const CombineInput back = drawCombine(test, layout, random, specials);
    const CombineArrays arrays = arraysOf(test, back);
    std::vector<Combined> sums(groups.size());
    onEveryNode(nodes, [&](int node) {
      const auto n = static_cast<size_t>(node);
      std::vector<std::vector<fa2a_array>> bias;
      for (const auto& one : arrays.bias) bias.push_back(slice(one, node, perNode));
      sums[n] = combine(groups[n]->get(), handles[n].get(), slice(arrays.x, node, perNode), slice(arrays.weights, node, perNode),
                        slice(arrays.probs, node, perNode), bias, stream);
      FA2A_CALL(fa2a_event_wait, sums[n].event.get());
    });
    Combined all;
    for (Combined& part : sums) {
      append(all.x, std::move(part.x));
      append(all.weights, std::move(part.weights));
      append(all.probs, std::move(part.probs));
    }
    all.event = std::move(sums[0].event);
    checkCombined(test, layout, back, all);
    return test.hidden * reference::elementBytes(back.dtype) + 4 * test.topk;
  };
  Inputs inputs = makeInputs(groups[0]->get(), test, false, wide);
  dispatchAll(inputs, false);
  for (int node = 0; node < nodes; node++) {
    checkHandle(test, layout, handles[static_cast<size_t>(node)].get(), node * perNode, perNode);
  }
  const int64_t combineBytes = combineAll(true);
  checkTraffic(test, groups, before, combineBytes, 1, 1);
  redrawRows(random, test, true);
  inputs = makeInputs(groups[0]->get(), test, false, wide);
  dispatchAll(inputs, true);
  combineAll(true);
  for (size_t r = 0; r < before.size(); r++) {
    FA2A_CALL(fa2a_group_network, groups[r / static_cast<size_t>(perNode)]->get(), static_cast<int>(r) % perNode, &before[r]);
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

}  // namespace

void checkNodes(int nodes, int perNode, int cases, Random& random, int maxTokens) {
  const std::vector<uint8_t> id = makeId(perNode);
  std::vector<std::unique_ptr<Group>> groups(static_cast<size_t>(nodes));
  onEveryNode(nodes, [&](int node) { groups[static_cast<size_t>(node)] = makeGroup(nodes, perNode, node, id); });
  std::vector<fa2a_network_info> before(static_cast<size_t>(nodes * perNode));
  for (int i = 0; i < cases; i++) {
    const reference::Case test = randomCase(random, nodes * perNode, perNode, maxTokens, true);
    try {
      checkOne(groups, test, random, before);
    } catch (const std::exception& error) {
      throw Mismatch(std::to_string(nodes) + " nodes of " + std::to_string(perNode) + ", case " + std::to_string(i) + ": " +
                     error.what() + "\n  " + describe(test));
    }
  }
  onEveryNode(nodes, [&](int node) { groups[static_cast<size_t>(node)].reset(); });
}

void checkNodeFailures() {
  const std::vector<uint8_t> id = makeId(2);
  // The other node never comes.
  expectFailure("absent node", FA2A_TIMEOUT, "received none; look at their processes", [&](fa2a_error* error) {
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
    const fa2a_code code = fa2a_group_create(&options, &group, error);
    if (code == FA2A_OK) fa2a_group_close(group, nullptr);
    return code;
  });
  Random random(5);
  const reference::Case test = randomCase(random, 4, 2, 20, false);
  for (const char* how : {"stopped", "closed", "aborted"}) {
    const std::vector<uint8_t> fresh = makeId(2);
    std::vector<std::unique_ptr<Group>> groups(2);
    onEveryNode(2, [&](int node) { groups[static_cast<size_t>(node)] = makeGroup(2, 2, node, fresh, 400); });
    const Inputs inputs = makeInputs(groups[0]->get(), test, false, false);
    const Inputs own = sliceInputs(inputs, 0, 2);
    std::thread other;
    const std::string mode = how;
    if (mode == "closed") groups[1].reset();
    if (mode == "aborted") {
      other = std::thread([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        fa2a_group_abort(groups[0]->get(), nullptr);
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
    const std::string wanted = late ? "expects the counts of 1 other nodes, not received" : mode == "closed" ? "closed by remote rank" : "abort";
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
