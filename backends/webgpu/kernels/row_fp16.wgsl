// A unit of an fp16 row: 8 elements in 16 bytes, the even ones in `low`, the odd ones in `high`.
const HALVES = 2u;

fn low(unit: vec4u) -> vec4f {
  return bitcast<vec4f>(fp16ToBits(unit & vec4u(0xffffu)));
}

fn high(unit: vec4u) -> vec4f {
  return bitcast<vec4f>(fp16ToBits(unit >> vec4u(16u)));
}

// Float32 bits with canonical NaN -> unit.
fn pack(lowBits: vec4u, highBits: vec4u) -> vec4u {
  return fp16FromBits(lowBits) | (fp16FromBits(highBits) << vec4u(16u));
}

// A total as the row's dtype would hold it.
fn rounded(v: vec4f) -> vec4f {
  return bitcast<vec4f>(fp16ToBits(fp16FromBits(totalBits(v))));
}
