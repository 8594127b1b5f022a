// Slots received per expert: those chosen and not cut. Sums of ones are the same in any order, so atomics are safe here.
// One invocation per slot.
override COLUMNS: u32;
override ROWS: u32;

struct Params {
  numSlots: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> topkIdx: array<i32>;
@group(0) @binding(2) var<storage, read> cut: array<u32>;
@group(0) @binding(3) var<storage, read_write> counts: array<atomic<u32>>;

@compute @workgroup_size(COLUMNS, ROWS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) numGroups: vec3u,
  @builtin(local_invocation_id) local: vec3u,
) {
  let slot = (group.y * numGroups.x + group.x) * ROWS + local.y;
  if (slot >= params.numSlots) {
    return;
  }
  let expert = topkIdx[slot];
  if (expert >= 0 && cut[slot] == 0u) {
    atomicAdd(&counts[expert], 1u);
  }
}
