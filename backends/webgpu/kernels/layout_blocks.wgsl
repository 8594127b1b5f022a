// Hybrid-ep: from the rows each expert wants to the row where its block starts on its rank, with padding and the row
// budget (design 2.5, 2.7). One invocation per rank.
override COLUMNS: u32;
override ROWS: u32;

struct Params {
  numRanks: u32,
  expertsPerRank: u32,
  padMultiple: u32,
  // Rows a rank may have; 0xffffffff = as many as it takes.
  budget: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
// [numExperts]: rows wanted; becomes the first row of the block.
@group(0) @binding(1) var<storage, read_write> next: array<u32>;
// [numExperts]: rows that fit, then those padded.
@group(0) @binding(2) var<storage, read_write> counts: array<u32>;
@group(0) @binding(3) var<storage, read_write> padded: array<u32>;
// [numRanks]: rows with padding, without the budget.
@group(0) @binding(4) var<storage, read_write> numRows: array<u32>;

fn pad(count: u32) -> u32 {
  return (count + params.padMultiple - 1u) / params.padMultiple * params.padMultiple;
}

@compute @workgroup_size(COLUMNS, ROWS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) numGroups: vec3u,
  @builtin(local_invocation_id) local: vec3u,
) {
  let rank = (group.y * numGroups.x + group.x) * ROWS + local.y;
  if (rank >= params.numRanks) {
    return;
  }
  var row = 0u;
  for (var i = 0u; i < params.expertsPerRank; i++) {
    let expert = rank * params.expertsPerRank + i;
    let wanted = next[expert];
    let room = select(0u, params.budget - row, row < params.budget);
    next[expert] = row;
    counts[expert] = min(wanted, room);
    padded[expert] = pad(counts[expert]);
    row += pad(wanted);
  }
  numRows[rank] = row;
}
