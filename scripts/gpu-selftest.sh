#!/bin/sh
# The native self-test on a machine with a GPU, without Node: builds it with one nvcc line, then correctness, graphs,
# times and the compute-sanitizer tools. Text on stdout; the order is what matters most first, so that a time limit
# cuts off the least. Usage: scripts/gpu-selftest.sh [bench options, e.g. --tokens 4096]
set -u
cd "$(dirname "$0")/.." || exit 2
arch=${FUSED_A2A_CUDA_ARCH:-sm_90}
program=${SELFTEST:-build/selftest-cuda}
export CUDA_DEVICE_MAX_CONNECTIONS=32 CUDA_MODULE_LOADING=EAGER
failed=0
step() {
  echo
  echo "== $*"
  started=$(date +%s)
  "$@" || { echo "FAILED: $*"; failed=$((failed + 1)); }
  echo "-- $(($(date +%s) - started)) s"
}

if [ ! -x "$program" ]; then
  mkdir -p build
  step nvcc -std=c++20 -O3 --fmad=false -arch="$arch" --threads 0 -cudart static -lineinfo \
    "-DFA2A_ARCHITECTURES=\"$arch\"" "-DFA2A_COMPILER=\"nvcc\"" \
    backends/cuda/native/*.cc backends/cuda/native/*.cu backends/cuda/native/selftest/*.cc -o "$program"
fi
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
step "$program" devices
step "$program" check --groups 24
step "$program" graph
step "$program" bench "$@"
if command -v compute-sanitizer >/dev/null; then
  step compute-sanitizer --tool memcheck --error-exitcode 1 "$program" check --groups 3 --cases 2 --operations 10
  step compute-sanitizer --tool synccheck --error-exitcode 1 "$program" check --groups 2 --cases 2 --operations 6
  step compute-sanitizer --tool racecheck --error-exitcode 1 "$program" check --groups 2 --cases 2 --operations 6
  step compute-sanitizer --tool initcheck --error-exitcode 1 "$program" check --groups 2 --cases 2 --operations 6
else
  echo "compute-sanitizer: not found"
fi
echo
echo "$failed steps failed"
[ "$failed" -eq 0 ]
