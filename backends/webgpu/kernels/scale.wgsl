// x[row, :] * factor[row] in float32 under the product rule, rounded to x's dtype. One workgroup row per row, its columns
// striding over the units.
override COLUMNS: u32;
override ROWS: u32;

struct Params {
  numRows: u32,
  numUnits: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4u>;
// [numRows] float32.
@group(0) @binding(2) var<storage, read> factors: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4u>;

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
  let factor = flushFactor(bitcast<vec4f>(vec4u(factors[row])));
  for (var unit = local.x; unit < params.numUnits; unit += COLUMNS) {
    let values = x[row * params.numUnits + unit];
    let lowBits = productBits(low(values), factor);
    var highBits = vec4u();
    if (HALVES == 2u) {
      highBits = productBits(high(values), factor);
    }
    out[row * params.numUnits + unit] = pack(lowBits, highBits);
  }
}
