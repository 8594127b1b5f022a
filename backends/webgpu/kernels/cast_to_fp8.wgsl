// Rows to fp8 e4m3fn with one float32 scale per 128 columns (design section 6): amax floored at 1e-4, x * (448 / amax)
// rounded to e4m3, stored scale amax / 448. One invocation per block. Elements past the row's end are zero in x.
override COLUMNS: u32;
override ROWS: u32;

struct Params {
  numRows: u32,
  // 16-byte units per row of x and of out.
  numUnits: u32,
  numOutUnits: u32,
  numBlocks: u32,
}

// float32(1e-4): a block of zeros still has a finite scale.
const LEAST_AMAX = 0x38d1b717u;
const FP8_MAX = 0x43e00000u;
const OUT_UNITS_PER_BLOCK = 8u;
// Units of x that make one unit of out: 16 elements.
const WIDTH = 4u / HALVES;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4u>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4u>;
// [numRows, numBlocks] float32.
@group(0) @binding(3) var<storage, read_write> scales: array<u32>;

fn magnitude(unit: vec4u) -> vec4u {
  let lowBits = bitcast<vec4u>(low(unit)) & vec4u(MAGNITUDE);
  if (HALVES == 1u) {
    return lowBits;
  }
  return max(lowBits, bitcast<vec4u>(high(unit)) & vec4u(MAGNITUDE));
}

// The codes of one unit of x: 8 bytes for 16-bit elements, 4 bytes (in the first word) for fp32.
fn encode(unit: vec4u, factor: vec4f) -> vec2u {
  let a = fp8FromBits(productBits(low(unit), factor));
  if (HALVES == 1u) {
    return vec2u(a.x | (a.y << 8u) | (a.z << 16u) | (a.w << 24u), 0u);
  }
  let b = fp8FromBits(productBits(high(unit), factor));
  let words = a | (b << vec4u(8u));
  return vec2u(words.x | (words.y << 16u), words.z | (words.w << 16u));
}

fn load(index: u32, end: u32) -> vec4u {
  return select(vec4u(), x[min(index, end - 1u)], index < end);
}

@compute @workgroup_size(COLUMNS, ROWS)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) numGroups: vec3u,
  @builtin(local_invocation_id) local: vec3u,
) {
  let n = (group.y * numGroups.x + group.x) * ROWS + local.y;
  if (n >= params.numRows * params.numBlocks) {
    return;
  }
  let row = n / params.numBlocks;
  let firstOut = (n % params.numBlocks) * OUT_UNITS_PER_BLOCK;
  let endOut = min(firstOut + OUT_UNITS_PER_BLOCK, params.numOutUnits);
  let rowStart = row * params.numUnits;
  let rowEnd = rowStart + params.numUnits;
  let first = rowStart + firstOut * WIDTH;
  let end = min(rowStart + endOut * WIDTH, rowEnd);
  // Magnitudes order as integers, and every NaN lies above infinity: a NaN in a block makes all of it NaN.
  var most = vec4u(LEAST_AMAX);
  for (var unit = first; unit < end; unit++) {
    most = max(most, magnitude(x[unit]));
  }
  let amax = max(max(most.x, most.y), max(most.z, most.w));
  var factor = 0u;
  var scale = amax;
  if (amax > EXPONENT) {
    factor = NAN_BITS;
    scale = NAN_BITS;
  } else if (amax < EXPONENT) {
    factor = divideBits(FP8_MAX, amax);
    scale = divideBits(amax, FP8_MAX);
  }
  scales[n] = scale;
  let factors = vec4f(bitcast<f32>(factor));
  for (var unit = firstOut; unit < endOut; unit++) {
    let origin = rowStart + unit * WIDTH;
    let a = encode(load(origin, rowEnd), factors);
    let b = encode(load(origin + 1u, rowEnd), factors);
    if (HALVES == 2u) {
      out[row * params.numOutUnits + unit] = vec4u(a, b);
    } else {
      let c = encode(load(origin + 2u, rowEnd), factors);
      let d = encode(load(origin + 3u, rowEnd), factors);
      out[row * params.numOutUnits + unit] = vec4u(a.x, b.x, c.x, d.x);
    }
  }
}
