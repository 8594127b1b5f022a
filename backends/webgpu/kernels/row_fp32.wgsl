// A unit of an fp32 row: 4 elements in 16 bytes, all of them in `low`.
const HALVES = 1u;

fn low(unit: vec4u) -> vec4f {
  return bitcast<vec4f>(unit);
}

fn high(unit: vec4u) -> vec4f {
  return vec4f();
}

// Float32 bits with canonical NaN -> unit.
fn pack(lowBits: vec4u, highBits: vec4u) -> vec4u {
  return lowBits;
}

// A total as the row's dtype would hold it.
fn rounded(v: vec4f) -> vec4f {
  return bitcast<vec4f>(totalBits(v));
}
