// Adds and multiplies pairs of float32, to see whether the device itself counts subnormals as zero (probe.ts).
override COLUMNS: u32;
override ROWS: u32;

struct Params {
  numPairs: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [numPairs, 2] units of 4 float32.
@group(0) @binding(1) var<storage, read> terms: array<vec4u>;
// [numPairs, 2]: sum and product.
@group(0) @binding(2) var<storage, read_write> results: array<vec4u>;

@compute @workgroup_size(COLUMNS, ROWS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) numGroups: vec3u,
  @builtin(local_invocation_id) local: vec3u,
) {
  let n = (group.y * numGroups.x + group.x) * ROWS + local.y;
  if (n < params.numPairs) {
    let a = bitcast<vec4f>(terms[2u * n]);
    let b = bitcast<vec4f>(terms[2u * n + 1u]);
    results[2u * n] = bitcast<vec4u>(a + b);
    results[2u * n + 1u] = bitcast<vec4u>(a * b);
  }
}
