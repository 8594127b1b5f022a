// Correctly rounded division, independent of the device's: WGSL allows its own to be off by 2.5 ULP. Long division of
// the mantissas in integers, nearest even.

// Bits of a / b for positive normal a and b whose quotient is normal too.
fn divideBits(a: u32, b: u32) -> u32 {
  let divisor = (b & 0x7fffffu) | 0x800000u;
  var rest = (a & 0x7fffffu) | 0x800000u;
  var exponent = (a >> 23u) + 127u - (b >> 23u);
  if (rest < divisor) {
    rest <<= 1u;
    exponent -= 1u;
  }
  // 24 bits of quotient, the first of them 1, and one more to round by.
  var quotient = 0u;
  for (var i = 0u; i < 25u; i++) {
    quotient <<= 1u;
    if (rest >= divisor) {
      rest -= divisor;
      quotient |= 1u;
    }
    rest <<= 1u;
  }
  let half = quotient & 1u;
  quotient >>= 1u;
  let up = half & (select(0u, 1u, rest != 0u) | (quotient & 1u));
  // A carry out of the mantissa lands in the exponent, where it belongs.
  return (exponent << 23u) + (quotient + up - 0x800000u);
}
