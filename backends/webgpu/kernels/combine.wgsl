// Sums rows: segment n is the float32 sum of its entries in their order, every partial sum flushed, rounded once to the
// rows' dtype. Combine runs it in stages over one array of rows (combine.ts): the permuted rows of a rank, the rank rows
// of a node, the node rows of a token with its biases in front. One workgroup row per segment, its columns striding over
// the units. Row 0 is all zeros and fills up short lists.
override COLUMNS: u32;
override ROWS: u32;

struct Params {
  numSegments: u32,
  // 16-byte units per row.
  numUnits: u32,
}

// Entries whose place is known before the loop over the columns; longer lists read the rest of the table inside it.
const NUM_HOISTED = 8u;

struct Sums {
  low: vec4f,
  high: vec4f,
}

@group(0) @binding(0) var<uniform> params: Params;
// [numSegments, 1 + NUM_ENTRIES]: the row to write, then the rows to add.
@group(0) @binding(1) var<storage, read> segments: array<u32>;
@group(0) @binding(2) var<storage, read_write> rows: array<vec4u>;

// First unit of entry i of the segment at `segment`.
fn first(segment: u32, i: u32) -> u32 {
  return segments[segment + 1u + min(i, NUM_ENTRIES - 1u)] * params.numUnits;
}

fn addUnit(sums: ptr<function, Sums>, index: u32) {
  let unit = rows[index];
  (*sums).low = add((*sums).low, flush(low(unit)));
  if (HALVES == 2u) {
    (*sums).high = add((*sums).high, flush(high(unit)));
  }
}

@compute @workgroup_size(COLUMNS, ROWS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) numGroups: vec3u,
  @builtin(local_invocation_id) local: vec3u,
) {
  let n = (group.y * numGroups.x + group.x) * ROWS + local.y;
  if (n >= params.numSegments) {
    return;
  }
  let numUnits = params.numUnits;
  let segment = n * (1u + NUM_ENTRIES);
  let goal = segments[segment] * numUnits;
  let first0 = first(segment, 0u);
  let first1 = first(segment, 1u);
  let first2 = first(segment, 2u);
  let first3 = first(segment, 3u);
  let first4 = first(segment, 4u);
  let first5 = first(segment, 5u);
  let first6 = first(segment, 6u);
  let first7 = first(segment, 7u);
  for (var unit = local.x; unit < numUnits; unit += COLUMNS) {
    var sums = Sums();
    addUnit(&sums, first0 + unit);
    if (NUM_ENTRIES > 1u) { addUnit(&sums, first1 + unit); }
    if (NUM_ENTRIES > 2u) { addUnit(&sums, first2 + unit); }
    if (NUM_ENTRIES > 3u) { addUnit(&sums, first3 + unit); }
    if (NUM_ENTRIES > 4u) { addUnit(&sums, first4 + unit); }
    if (NUM_ENTRIES > 5u) { addUnit(&sums, first5 + unit); }
    if (NUM_ENTRIES > 6u) { addUnit(&sums, first6 + unit); }
    if (NUM_ENTRIES > 7u) { addUnit(&sums, first7 + unit); }
    for (var i = NUM_HOISTED; i < NUM_ENTRIES; i++) {
      addUnit(&sums, first(segment, i) + unit);
    }
    rows[goal + unit] = pack(totalBits(sums.low), totalBits(sums.high));
  }
}
