// A unit of a bf16 row: 8 elements in 16 bytes, the even ones in `low`, the odd ones in `high`.
const HALVES = 2u;

fn low(unit: vec4u) -> vec4f {
  return bitcast<vec4f>(unit << vec4u(16u));
}

fn high(unit: vec4u) -> vec4f {
  return bitcast<vec4f>(unit & vec4u(0xffff0000u));
}

// Float32 bits with canonical NaN -> unit.
fn pack(lowBits: vec4u, highBits: vec4u) -> vec4u {
  return (roundToBf16(lowBits) >> vec4u(16u)) | roundToBf16(highBits);
}

// A total as the row's dtype would hold it.
fn rounded(v: vec4f) -> vec4f {
  return bitcast<vec4f>(roundToBf16(totalBits(v)));
}
