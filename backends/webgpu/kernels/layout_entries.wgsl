// Per token, where its slots go: the distinct keys of its experts in ascending order, each with the slot it came from.
// key = expert / DIVISOR: the expert itself, its rank or its node. One invocation per token, insertion into its own list.
override COLUMNS: u32;
override ROWS: u32;

struct Params {
  numTokens: u32,
  topk: u32,
  // Entries per token: the longest list there can be.
  width: u32,
  divisor: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [numTokens, topk] global expert ids, -1 = no choice.
@group(0) @binding(1) var<storage, read> topkIdx: array<i32>;
// [numTokens, width], -1 behind the last.
@group(0) @binding(2) var<storage, read_write> keys: array<i32>;
@group(0) @binding(3) var<storage, read_write> slots: array<i32>;

@compute @workgroup_size(COLUMNS, ROWS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) numGroups: vec3u,
  @builtin(local_invocation_id) local: vec3u,
) {
  let token = (group.y * numGroups.x + group.x) * ROWS + local.y;
  if (token >= params.numTokens) {
    return;
  }
  let first = token * params.width;
  for (var i = 0u; i < params.width; i++) {
    keys[first + i] = -1;
    slots[first + i] = -1;
  }
  var count = 0u;
  for (var slot = 0u; slot < params.topk; slot++) {
    let expert = topkIdx[token * params.topk + slot];
    if (expert < 0) {
      continue;
    }
    let key = expert / i32(params.divisor);
    var at = count;
    while (at > 0u && keys[first + at - 1u] > key) {
      at--;
    }
    if (at > 0u && keys[first + at - 1u] == key) {
      continue;
    }
    for (var i = count; i > at; i--) {
      keys[first + i] = keys[first + i - 1u];
      slots[first + i] = slots[first + i - 1u];
    }
    keys[first + at] = key;
    slots[first + at] = i32(slot);
    count++;
  }
}
