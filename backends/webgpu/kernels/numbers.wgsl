// The one rule for numbers that all backends share (design 2.11), on four float32 at a time, and the 16-bit and 8-bit
// codes by integer arithmetic. NaN is recognised by its bits: compilers fold x != x to false.
const SIGN = 0x80000000u;
const MAGNITUDE = 0x7fffffffu;
const EXPONENT = 0x7f800000u;
const NAN_BITS = 0x7fc00000u;
const EXPONENT_ONE = 0x00800000u;

// A term or partial sum: exponent field 0 counts as zero. Sums of zeros end as +0, so the sign may go here. A device whose
// additions were seen to do just that (probe.ts) needs no help: half of combine's time on SwiftShader.
fn flush(v: vec4f) -> vec4f {
  if (DEVICE_FLUSHES) {
    return v;
  }
  let bits = bitcast<vec4u>(v);
  return select(v, vec4f(), (bits & vec4u(EXPONENT)) == vec4u());
}

fn add(a: vec4f, b: vec4f) -> vec4f {
  return flush(a + b);
}

// The bits of a total: a zero is +0, every NaN the canonical one. The sum of one term may still be subnormal on a device
// that flushes by itself, because compilers fold 0 + x to x.
fn totalBits(v: vec4f) -> vec4u {
  let bits = bitcast<vec4u>(v);
  let number = select(bits, vec4u(), (bits & vec4u(EXPONENT)) == vec4u());
  return select(number, vec4u(NAN_BITS), (bits & vec4u(MAGNITUDE)) > vec4u(EXPONENT));
}

// The bits of a product of flushed factors: exponent field <= 1 counts as zero with the product's sign. `b` is flushed
// already (flushFactor), as it is the same for many a.
fn productBits(a: vec4f, b: vec4f) -> vec4u {
  let bits = bitcast<vec4u>(flushFactor(a) * b);
  let exponent = bits & vec4u(EXPONENT);
  let number = select(bits, bits & vec4u(SIGN), exponent <= vec4u(EXPONENT_ONE));
  return select(number, vec4u(NAN_BITS), (bits & vec4u(MAGNITUDE)) > vec4u(EXPONENT));
}

// A factor: exponent field 0 counts as zero with its sign.
fn flushFactor(v: vec4f) -> vec4f {
  if (DEVICE_FLUSHES) {
    return v;
  }
  let bits = bitcast<vec4u>(v);
  return bitcast<vec4f>(select(bits, bits & vec4u(SIGN), (bits & vec4u(EXPONENT)) == vec4u()));
}

// Float32 bits (no NaN but the canonical one) -> bf16 in the high half, nearest even.
fn roundToBf16(bits: vec4u) -> vec4u {
  return (bits + vec4u(0x7fffu) + ((bits >> vec4u(16u)) & vec4u(1u))) & vec4u(0xffff0000u);
}

// fp16 codes -> float32 bits; exact.
fn fp16ToBits(code: vec4u) -> vec4u {
  let magnitude = code & vec4u(0x7fffu);
  let normal = (magnitude << vec4u(13u)) + vec4u(0x38000000u);
  let special = (magnitude << vec4u(13u)) | vec4u(EXPONENT);
  let subnormal = bitcast<vec4u>(vec4f(magnitude) * vec4f(5.9604644775390625e-8));
  var bits = select(normal, special, magnitude >= vec4u(0x7c00u));
  bits = select(bits, subnormal, magnitude < vec4u(0x400u));
  return bits | ((code & vec4u(0x8000u)) << vec4u(16u));
}

// Float32 bits -> fp16 codes, nearest even, subnormals kept, NaN canonical.
fn fp16FromBits(bits: vec4u) -> vec4u {
  let sign = (bits >> vec4u(16u)) & vec4u(0x8000u);
  let magnitude = bits & vec4u(MAGNITUDE);
  let normal = (magnitude + vec4u(0xfffu) + ((magnitude >> vec4u(13u)) & vec4u(1u)) - vec4u(0x38000000u)) >> vec4u(13u);
  // Shifts past 24 leave nothing but the sticky bit, which 25 shows as well.
  let shift = min(vec4u(126u) - min(magnitude >> vec4u(23u), vec4u(112u)), vec4u(25u));
  let subnormal = roundShift((magnitude & vec4u(0x7fffffu)) | vec4u(0x800000u), shift);
  var code = select(normal, subnormal, magnitude < vec4u(0x38800000u));
  code = select(code, vec4u(), magnitude <= vec4u(0x33000000u));
  code = select(code, vec4u(0x7c00u), magnitude >= vec4u(0x477ff000u));
  return select(code | sign, vec4u(0x7e00u), magnitude > vec4u(EXPONENT));
}

// fp8 e4m3fn codes -> float32 bits; exact.
fn fp8ToBits(code: vec4u) -> vec4u {
  let magnitude = code & vec4u(0x7fu);
  let normal = (magnitude << vec4u(20u)) + vec4u(0x3c000000u);
  let subnormal = bitcast<vec4u>(vec4f(magnitude) * vec4f(0.001953125));
  var bits = select(normal, subnormal, magnitude < vec4u(8u));
  bits = select(bits, vec4u(NAN_BITS), magnitude == vec4u(0x7fu));
  return bits | ((code & vec4u(0x80u)) << vec4u(24u));
}

// Float32 bits -> fp8 e4m3fn codes, nearest even, saturating at 448, subnormals kept, NaN 0x7f.
fn fp8FromBits(bits: vec4u) -> vec4u {
  let sign = (bits >> vec4u(24u)) & vec4u(0x80u);
  let magnitude = bits & vec4u(MAGNITUDE);
  let rounded = magnitude + vec4u(0x7ffffu) + ((magnitude >> vec4u(20u)) & vec4u(1u));
  let normal = min((rounded - vec4u(0x3c000000u)) >> vec4u(20u), vec4u(0x7eu));
  let shift = min(vec4u(141u) - min(magnitude >> vec4u(23u), vec4u(120u)), vec4u(25u));
  let subnormal = roundShift((magnitude & vec4u(0x7fffffu)) | vec4u(0x800000u), shift);
  var code = select(normal, subnormal, magnitude < vec4u(0x3c800000u));
  code = select(code, vec4u(), magnitude <= vec4u(0x3a800000u));
  code = select(code, vec4u(0x7eu), magnitude >= vec4u(0x43e00000u));
  return select(code | sign, vec4u(0x7fu), magnitude > vec4u(EXPONENT));
}

// value / 2^shift to the nearest whole number, ties to even; 1 <= shift <= 25.
fn roundShift(value: vec4u, shift: vec4u) -> vec4u {
  let kept = value >> shift;
  let rest = value & ((vec4u(1u) << shift) - vec4u(1u));
  let half = vec4u(1u) << (shift - vec4u(1u));
  let up = (rest > half) | ((rest == half) & ((kept & vec4u(1u)) == vec4u(1u)));
  return kept + select(vec4u(), vec4u(1u), up);
}
