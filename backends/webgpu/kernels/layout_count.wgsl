// First step of the prefix sums: how often each key occurs in each tile of tokens. One invocation walks one tile, so
// every counter has one owner.
override COLUMNS: u32;
override ROWS: u32;

struct Params {
  numTokens: u32,
  width: u32,
  tokensPerTile: u32,
  numKeys: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> keys: array<i32>;
// [tiles, numKeys]
@group(0) @binding(2) var<storage, read_write> counts: array<u32>;

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
  for (var i = 0u; i < params.numKeys; i++) {
    counts[counters + i] = 0u;
  }
  for (var i = firstToken * params.width; i < end * params.width; i++) {
    let key = keys[i];
    if (key >= 0) {
      counts[counters + u32(key)] += 1u;
    }
  }
}
