// Moves rows as bytes: row n of the chunk is row source[n] of the tile, or zeros. One workgroup row per row of the chunk,
// its columns striding over the units. No bit changes: units are integers.
override COLUMNS: u32;
override ROWS: u32;

struct Params {
  numRows: u32,
  // Units per row.
  numUnits: u32,
}

const PADDING = -1;
const OTHER_TILE = -2;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> source: array<i32>;
@group(0) @binding(2) var<storage, read> x: array<Unit>;
@group(0) @binding(3) var<storage, read_write> out: array<Unit>;

@compute @workgroup_size(COLUMNS, ROWS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) numGroups: vec3u,
  @builtin(local_invocation_id) local: vec3u,
) {
  let row = (group.y * numGroups.x + group.x) * ROWS + local.y;
  if (row >= params.numRows) {
    return;
  }
  let origin = source[row];
  if (origin == OTHER_TILE) {
    return;
  }
  let goal = row * params.numUnits;
  if (origin == PADDING) {
    for (var unit = local.x; unit < params.numUnits; unit += COLUMNS) {
      out[goal + unit] = Unit();
    }
    return;
  }
  let first = u32(origin) * params.numUnits;
  for (var unit = local.x; unit < params.numUnits; unit += COLUMNS) {
    out[goal + unit] = x[first + unit];
  }
}
