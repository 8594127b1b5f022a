// Counts the keys of a rank's tokens and sets their bits in a mask. Sums of ones are the same in any order, so atomics are
// safe here; positions never come from them. One invocation per token.
override COLUMNS: u32;
override ROWS: u32;

struct Params {
  numTokens: u32,
  width: u32,
  // 32-bit words of mask per token; 0 = no mask wanted.
  maskWords: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> keys: array<i32>;
@group(0) @binding(2) var<storage, read_write> counts: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> mask: array<u32>;

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
  for (var i = 0u; i < params.maskWords; i++) {
    mask[token * params.maskWords + i] = 0u;
  }
  for (var i = 0u; i < params.width; i++) {
    let key = keys[token * params.width + i];
    if (key < 0) {
      break;
    }
    atomicAdd(&counts[key], 1u);
    if (params.maskWords > 0u) {
      let word = token * params.maskWords + u32(key) / 32u;
      mask[word] |= 1u << (u32(key) % 32u);
    }
  }
}
