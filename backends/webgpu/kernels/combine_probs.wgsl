// Hybrid-ep combine of probs: entry n of the chunk puts the bits of probs[source[n]] at out[goal[n]]; the rest of the
// dense [tokens, experts] table was cleared.
override COLUMNS: u32;
override ROWS: u32;

struct Params {
  numEntries: u32,
}

struct Entry {
  source: i32,
  place: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> entries: array<Entry>;
@group(0) @binding(2) var<storage, read> probs: array<u32>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;

@compute @workgroup_size(COLUMNS, ROWS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) numGroups: vec3u,
  @builtin(local_invocation_id) local: vec3u,
) {
  let n = (group.y * numGroups.x + group.x) * ROWS + local.y;
  if (n >= params.numEntries) {
    return;
  }
  let entry = entries[n];
  if (entry.source >= 0) {
    out[entry.place] = probs[entry.source];
  }
}
