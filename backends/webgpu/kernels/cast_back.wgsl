// fp8 e4m3fn rows times one float32 scale per 128 columns -> bf16, the float32 product rounded once. One workgroup row
// per row, its columns striding over units of 8 elements.
override COLUMNS: u32;
override ROWS: u32;

struct Params {
  numRows: u32,
  // Units of 8 elements per row: of x (8 bytes) and of out (16 bytes).
  numUnits: u32,
  numOutUnits: u32,
  numBlocks: u32,
}

const UNITS_PER_BLOCK = 16u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec2u>;
// [numRows, numBlocks] float32.
@group(0) @binding(2) var<storage, read> scales: array<u32>;
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
  for (var unit = local.x; unit < params.numOutUnits; unit += COLUMNS) {
    let codes = x[row * params.numUnits + unit];
    let scale = flushFactor(bitcast<vec4f>(vec4u(scales[row * params.numBlocks + unit / UNITS_PER_BLOCK])));
    let shifts = vec4u(0u, 16u, 0u, 16u);
    let even = (codes.xxyy >> shifts) & vec4u(0xffu);
    let odd = (codes.xxyy >> (shifts + vec4u(8u))) & vec4u(0xffu);
    let lowBits = productBits(bitcast<vec4f>(fp8ToBits(even)), scale);
    let highBits = productBits(bitcast<vec4f>(fp8ToBits(odd)), scale);
    out[row * params.numOutUnits + unit] = pack(lowBits, highBits);
  }
}
