// Sums the rows that come back for each token, in the one order of design 2.4 and 2.5:
//   total = bias0 + bias1, or +0
//   one node:   for each rank:  total += row of the rank
//   more nodes: for each node:  total += round(sum of its ranks' rows)
//   row of a rank = its only row, or round(sum of its permuted rows, ascending by expert)
// One workgroup row per token, its columns striding over the units. An entry of the table is a row of x; two bits say
// where a rank and a node end. Entries behind the token's last one name row 0, which is all zeros.
override COLUMNS: u32;
override ROWS: u32;

struct Params {
  numTokens: u32,
  numUnits: u32,
  numBiases: u32,
}

const ENDS_RANK = 0x80000000u;
const ENDS_NODE = 0x40000000u;
const ROW = 0x3fffffffu;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> entries: array<u32>;
@group(0) @binding(2) var<storage, read> x: array<vec4u>;
// [numBiases, numTokens] rows.
@group(0) @binding(3) var<storage, read> bias: array<vec4u>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4u>;

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
  let numUnits = params.numUnits;
  var base: array<u32, NUM_ENTRIES>;
  var flags: array<u32, NUM_ENTRIES>;
  for (var i = 0u; i < NUM_ENTRIES; i++) {
    let entry = entries[token * NUM_ENTRIES + i];
    base[i] = (entry & ROW) * numUnits;
    flags[i] = entry;
  }
  for (var unit = local.x; unit < numUnits; unit += COLUMNS) {
    var totalLow = vec4f();
    var totalHigh = vec4f();
    for (var b = 0u; b < params.numBiases; b++) {
      let term = bias[(b * params.numTokens + token) * numUnits + unit];
      totalLow = add(totalLow, flush(low(term)));
      totalHigh = add(totalHigh, flush(high(term)));
    }
    var nodeLow = vec4f();
    var nodeHigh = vec4f();
    var rankLow = vec4f();
    var rankHigh = vec4f();
    for (var i = 0u; i < NUM_ENTRIES; i++) {
      let term = x[base[i] + unit];
      var termLow = flush(low(term));
      var termHigh = flush(high(term));
      if (PERMUTED) {
        rankLow = add(rankLow, termLow);
        rankHigh = add(rankHigh, termHigh);
        if ((flags[i] & ENDS_RANK) == 0u) {
          continue;
        }
        termLow = rounded(rankLow);
        termHigh = rounded(rankHigh);
        rankLow = vec4f();
        rankHigh = vec4f();
      }
      if (MULTI_NODE) {
        nodeLow = add(nodeLow, termLow);
        nodeHigh = add(nodeHigh, termHigh);
        if ((flags[i] & ENDS_NODE) == 0u) {
          continue;
        }
        termLow = rounded(nodeLow);
        termHigh = rounded(nodeHigh);
        nodeLow = vec4f();
        nodeHigh = vec4f();
      }
      totalLow = add(totalLow, termLow);
      totalHigh = add(totalHigh, termHigh);
    }
    out[token * numUnits + unit] = pack(totalBits(totalLow), totalBits(totalHigh));
  }
}
