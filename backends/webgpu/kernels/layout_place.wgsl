// Third step: every entry's row. One invocation walks one tile in token order and counts up from where the tile starts,
// so rows are ordered by (source rank, source token). Entries past the row budget are taken out of the lists, and the
// slots they stood for are marked (design 2.7).
override COLUMNS: u32;
override ROWS: u32;

struct Params {
  numTokens: u32,
  width: u32,
  tokensPerTile: u32,
  numKeys: u32,
  topk: u32,
  divisor: u32,
  // Rows a rank may have; 0xffffffff = as many as it takes.
  budget: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> topkIdx: array<i32>;
@group(0) @binding(2) var<storage, read_write> keys: array<i32>;
@group(0) @binding(3) var<storage, read_write> slots: array<i32>;
@group(0) @binding(4) var<storage, read_write> rows: array<i32>;
// [tiles, numKeys]: the row of the next token with that key.
@group(0) @binding(5) var<storage, read_write> next: array<u32>;
// [numTokens, topk]: 1 where the slot's row did not fit.
@group(0) @binding(6) var<storage, read_write> cut: array<u32>;

@compute @workgroup_size(COLUMNS, ROWS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) numGroups: vec3u,
  @builtin(local_invocation_id) local: vec3u,
) {
  let tile = (group.y * numGroups.x + group.x) * ROWS + local.y;
  let firstToken = tile * params.tokensPerTile;
  if (firstToken >= params.numTokens) {
    return;
  }
  let end = min(firstToken + params.tokensPerTile, params.numTokens);
  let counters = tile * params.numKeys;
  for (var token = firstToken; token < end; token++) {
    let first = token * params.width;
    var kept = 0u;
    for (var i = 0u; i < params.width; i++) {
      let key = keys[first + i];
      let slot = slots[first + i];
      rows[first + i] = -1;
      if (key < 0) {
        continue;
      }
      let row = next[counters + u32(key)];
      next[counters + u32(key)] = row + 1u;
      keys[first + i] = -1;
      slots[first + i] = -1;
      if (row < params.budget) {
        keys[first + kept] = key;
        slots[first + kept] = slot;
        rows[first + kept] = i32(row);
        kept++;
      }
    }
    for (var slot = 0u; slot < params.topk; slot++) {
      let expert = topkIdx[token * params.topk + slot];
      var found = expert < 0 || params.budget == 0xffffffffu;
      for (var i = 0u; i < kept && !found; i++) {
        found = keys[first + i] == expert / i32(params.divisor);
      }
      cut[token * params.topk + slot] = select(1u, 0u, found);
    }
  }
}
