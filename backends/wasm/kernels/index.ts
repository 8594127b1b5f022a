export { setTail, sumBf16, sumFp16, sumFp32 } from "./combine";
export { scatter, zero } from "./dispatch";
export {
  fromFp8, scaleBf16, scaleFp16, scaleFp32, setScratch, toFp8Bf16, toFp8Fp16, toFp8Fp32,
} from "./cast";
