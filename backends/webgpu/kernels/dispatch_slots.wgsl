// Fused dispatch, after the rows [ids | weights] of the tokens were moved: ids become local expert ids, -1 with weight
// +0 for slots of other ranks, dropped slots and rows without a source (design 2.3). Weights keep their bits.
override COLUMNS: u32;
override ROWS: u32;

struct Params {
  numRows: u32,
  topk: u32,
  // Global ids of the rank's experts: [firstExpert, endExpert).
  firstExpert: i32,
  endExpert: i32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> source: array<i32>;
@group(0) @binding(2) var<storage, read_write> rows: array<u32>;

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
  let first = row * 2u * params.topk;
  for (var slot = local.x; slot < params.topk; slot += COLUMNS) {
    let id = bitcast<i32>(rows[first + slot]);
    let mine = source[row] >= 0 && id >= params.firstExpert && id < params.endExpert;
    rows[first + slot] = select(0xffffffffu, bitcast<u32>(id - params.firstExpert), mine);
    if (!mine) {
      rows[first + params.topk + slot] = 0u;
    }
  }
}
