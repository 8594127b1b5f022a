// Second step: counts per tile become the row where the tile's first token with that key goes. next[key] is the row of
// the first tile and becomes that of the next chunk's. One invocation per key.
override COLUMNS: u32;
override ROWS: u32;

struct Params {
  numTiles: u32,
  numKeys: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> counts: array<u32>;
@group(0) @binding(2) var<storage, read_write> next: array<u32>;

@compute @workgroup_size(COLUMNS, ROWS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) numGroups: vec3u,
  @builtin(local_invocation_id) local: vec3u,
) {
  let key = (group.y * numGroups.x + group.x) * ROWS + local.y;
  if (key >= params.numKeys) {
    return;
  }
  var row = next[key];
  for (var tile = 0u; tile < params.numTiles; tile++) {
    let at = tile * params.numKeys + key;
    let count = counts[at];
    counts[at] = row;
    row += count;
  }
  next[key] = row;
}
