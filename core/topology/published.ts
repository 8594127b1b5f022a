/**
 * Published figures of dispatch and combine, as their owners print them (hidden 7168 everywhere), in the table form that
 * `simulate --fit` reads. Sources, by system and GPU:
 *   DeepEP-V1 (normal, low-latency) on H800   deepseek-ai/DeepEP docs/legacy.md
 *   DeepEP-V2 on SM90, SM100                  deepseek-ai/DeepEP README.md (experts assumed 256)
 *   HybridEP on H100, B200, GB200; DeepEP-V1 torch API on B200, GB200
 *                                             deepseek-ai/DeepEP hybrid-ep branch, docs/README_Hybrid-EP.md
 *   UCCL-EP on H200, B200                     uccl-project/uccl ep/README.md
 *   NCCL-EP low-latency on H100               NVIDIA/nccl contrib/nccl_ep/README.md
 *   CollectiveX rows on H200                  SemiAnalysisAI CollectiveX, runs 33356406487 and 33893771034 (p50)
 * `use`: "fit" rows make the shipped parameters, "hold" rows only test them (every second configuration), anything else
 * says why a row is set aside.
 */
export const PUBLISHED_TABLE = `system,gpu,nic,ranks,nodes,tokens,hidden,topk,experts,dtype_dispatch,dispatch_GBps,combine_GBps,dispatch_us,combine_us,sms,bandwidth_definition,notes,use
DeepEP-V1,H800,none,8,1,4096,7168,8,256,fp8,153,158,,,24,logical NVLink,,fit
DeepEP-V1,H800,CX7 400Gb/s,16,2,4096,7168,8,256,fp8,43,43,,,24,logical RDMA,top-4 groups,hold
DeepEP-V1,H800,CX7 400Gb/s,32,4,4096,7168,8,256,fp8,58,57,,,24,logical RDMA,top-4 groups,fit
DeepEP-V1,H800,CX7 400Gb/s,64,8,4096,7168,8,256,fp8,51,50,,,24,logical RDMA,top-4 groups,hold
DeepEP-V1 low-latency,H800,CX7 400Gb/s,8,1,128,7168,8,256,fp8,,,77,114,,LL messages,,fit
DeepEP-V1 low-latency,H800,CX7 400Gb/s,16,2,128,7168,8,256,fp8,,,118,195,,LL messages,,hold
DeepEP-V1 low-latency,H800,CX7 400Gb/s,32,4,128,7168,8,256,fp8,,,155,273,,LL messages,,fit
DeepEP-V1 low-latency,H800,CX7 400Gb/s,64,8,128,7168,8,256,fp8,,,173,314,,LL messages,,hold
DeepEP-V1 low-latency,H800,CX7 400Gb/s,128,16,128,7168,8,256,fp8,,,192,369,,LL messages,,fit
DeepEP-V1 low-latency,H800,CX7 400Gb/s,256,32,128,7168,8,256,fp8,,,194,360,,LL messages,,hold
DeepEP-V2,SM90,CX7 400Gb/s,16,2,8192,7168,8,256,fp8,90,81,,,12,logical RDMA; main kernel only,,fit
DeepEP-V2,SM90,CX7 400Gb/s,32,4,8192,7168,8,256,fp8,61,61,,,6,logical RDMA; main kernel only,,hold
DeepEP-V2,SM100 (B200),CX7 400Gb/s,16,2,8192,7168,8,256,fp8,90,91,,,12,logical RDMA; main kernel only,,hold
DeepEP-V2,SM100 (B200),none,8,1,8192,7168,8,256,fp8,726,740,,,64,logical NVLink; main kernel only,,hold
DeepEP-V2,SM100 (B200),none,8,1,8192,7168,8,256,fp8,643,675,,,24,logical NVLink; main kernel only,,fit
HybridEP torch API,H100,CX7 400Gb/s,16,2,4096,7168,8,128,fp8,28.09,,,,4,logical RDMA; torch API,,fit
HybridEP torch API,H100,CX7 400Gb/s,16,2,4096,7168,8,128,bf16,37.08,42.47,,,4,logical RDMA; torch API,,fit
HybridEP kernel only,H100,CX7 400Gb/s,16,2,4096,7168,8,128,fp8,34.00,,,,4,logical RDMA; kernel only,,fit
HybridEP kernel only,H100,CX7 400Gb/s,16,2,4096,7168,8,128,bf16,44.40,52.00,,,4,logical RDMA; kernel only,,fit
HybridEP torch API,H100,CX7 400Gb/s,16,2,4096,7168,8,128,fp8,44.87,,,,8,logical RDMA; torch API,,hold
HybridEP torch API,H100,CX7 400Gb/s,16,2,4096,7168,8,128,bf16,57.74,56.96,,,8,logical RDMA; torch API,,hold
HybridEP kernel only,H100,CX7 400Gb/s,16,2,4096,7168,8,128,fp8,62.00,,,,8,logical RDMA; kernel only,,hold
HybridEP kernel only,H100,CX7 400Gb/s,16,2,4096,7168,8,128,bf16,76.80,68.00,,,8,logical RDMA; kernel only,,hold
HybridEP torch API,H100,CX7 400Gb/s,16,2,4096,7168,8,128,fp8,48.26,,,,16,logical RDMA; torch API,,fit
HybridEP torch API,H100,CX7 400Gb/s,16,2,4096,7168,8,128,bf16,54.47,53.35,,,16,logical RDMA; torch API,,fit
HybridEP kernel only,H100,CX7 400Gb/s,16,2,4096,7168,8,128,fp8,68.48,,,,16,logical RDMA; kernel only,,fit
HybridEP kernel only,H100,CX7 400Gb/s,16,2,4096,7168,8,128,bf16,71.71,62.95,,,16,logical RDMA; kernel only,,fit
HybridEP torch API,H100,CX7 400Gb/s,32,4,4096,7168,8,256,fp8,32.58,,,,4,logical RDMA; torch API,,hold
HybridEP torch API,H100,CX7 400Gb/s,32,4,4096,7168,8,256,bf16,44.88,43.60,,,4,logical RDMA; torch API,,hold
HybridEP kernel only,H100,CX7 400Gb/s,32,4,4096,7168,8,256,fp8,38.50,,,,4,logical RDMA; kernel only,,hold
HybridEP kernel only,H100,CX7 400Gb/s,32,4,4096,7168,8,256,bf16,52.60,51.00,,,4,logical RDMA; kernel only,,hold
HybridEP torch API,H100,CX7 400Gb/s,32,4,4096,7168,8,256,fp8,41.23,,,,8,logical RDMA; torch API,,fit
HybridEP torch API,H100,CX7 400Gb/s,32,4,4096,7168,8,256,bf16,46.54,50.68,,,8,logical RDMA; torch API,,fit
HybridEP kernel only,H100,CX7 400Gb/s,32,4,4096,7168,8,256,fp8,51.30,,,,8,logical RDMA; kernel only,,fit
HybridEP kernel only,H100,CX7 400Gb/s,32,4,4096,7168,8,256,bf16,54.50,56.40,,,8,logical RDMA; kernel only,,fit
HybridEP torch API,H100,CX7 400Gb/s,32,4,4096,7168,8,256,fp8,42.10,,,,16,logical RDMA; torch API,,hold
HybridEP torch API,H100,CX7 400Gb/s,32,4,4096,7168,8,256,bf16,47.36,52.53,,,16,logical RDMA; torch API,,hold
HybridEP kernel only,H100,CX7 400Gb/s,32,4,4096,7168,8,256,fp8,55.35,,,,16,logical RDMA; kernel only,,hold
HybridEP kernel only,H100,CX7 400Gb/s,32,4,4096,7168,8,256,bf16,57.69,57.46,,,16,logical RDMA; kernel only,,hold
HybridEP torch API,H100,CX7 400Gb/s,64,8,4096,7168,8,512,fp8,30.42,,,,4,logical RDMA; torch API,,fit
HybridEP torch API,H100,CX7 400Gb/s,64,8,4096,7168,8,512,bf16,40.63,41.00,,,4,logical RDMA; torch API,,fit
HybridEP kernel only,H100,CX7 400Gb/s,64,8,4096,7168,8,512,fp8,37.50,,,,4,logical RDMA; kernel only,,fit
HybridEP kernel only,H100,CX7 400Gb/s,64,8,4096,7168,8,512,bf16,48.00,46.00,,,4,logical RDMA; kernel only,,fit
HybridEP torch API,H100,CX7 400Gb/s,64,8,4096,7168,8,512,fp8,35.71,,,,8,logical RDMA; torch API,,hold
HybridEP torch API,H100,CX7 400Gb/s,64,8,4096,7168,8,512,bf16,41.46,47.68,,,8,logical RDMA; torch API,,hold
HybridEP kernel only,H100,CX7 400Gb/s,64,8,4096,7168,8,512,fp8,46.63,,,,8,logical RDMA; kernel only,,hold
HybridEP kernel only,H100,CX7 400Gb/s,64,8,4096,7168,8,512,bf16,50.55,51.03,,,8,logical RDMA; kernel only,,hold
HybridEP torch API,H100,CX7 400Gb/s,64,8,4096,7168,8,512,fp8,35.01,,,,16,logical RDMA; torch API,,fit
HybridEP torch API,H100,CX7 400Gb/s,64,8,4096,7168,8,512,bf16,41.24,46.57,,,16,logical RDMA; torch API,,fit
HybridEP kernel only,H100,CX7 400Gb/s,64,8,4096,7168,8,512,fp8,46.52,,,,16,logical RDMA; kernel only,,fit
HybridEP kernel only,H100,CX7 400Gb/s,64,8,4096,7168,8,512,bf16,49.97,49.77,,,16,logical RDMA; kernel only,,fit
HybridEP torch API,B200,none,8,1,4096,7168,8,64,fp8,409.71,,,,16,logical NVLink; torch API,,hold
HybridEP torch API,B200,none,8,1,4096,7168,8,64,bf16,535.94,530.86,,,16,logical NVLink; torch API,,hold
HybridEP kernel only,B200,none,8,1,4096,7168,8,64,fp8,599.27,,,,16,logical NVLink; kernel only,,hold
HybridEP kernel only,B200,none,8,1,4096,7168,8,64,bf16,734.95,673.84,,,16,logical NVLink; kernel only,,hold
HybridEP torch API,GB200,none,8,1,4096,7168,8,64,fp8,421.67,,,,16,logical NVLink; torch API,,fit
HybridEP torch API,GB200,none,8,1,4096,7168,8,64,bf16,550.10,538.44,,,16,logical NVLink; torch API,,fit
HybridEP kernel only,GB200,none,8,1,4096,7168,8,64,fp8,620.98,,,,16,logical NVLink; kernel only,,fit
HybridEP kernel only,GB200,none,8,1,4096,7168,8,64,bf16,750.15,684.27,,,16,logical NVLink; kernel only,,fit
HybridEP torch API,GB200,none,8,1,4096,7168,8,64,fp8,455.35,,,,32,logical NVLink; torch API,,hold
HybridEP torch API,GB200,none,8,1,4096,7168,8,64,bf16,545.71,568.94,,,32,logical NVLink; torch API,,hold
HybridEP kernel only,GB200,none,8,1,4096,7168,8,64,fp8,713.98,,,,32,logical NVLink; kernel only,,hold
HybridEP kernel only,GB200,none,8,1,4096,7168,8,64,bf16,764.03,737.13,,,32,logical NVLink; kernel only,,hold
HybridEP torch API,GB200,none,16,1,4096,7168,8,128,fp8,397.33,,,,16,logical NVLink; torch API,,fit
HybridEP torch API,GB200,none,16,1,4096,7168,8,128,bf16,472.84,474.48,,,16,logical NVLink; torch API,,fit
HybridEP kernel only,GB200,none,16,1,4096,7168,8,128,fp8,577.17,,,,16,logical NVLink; kernel only,,fit
HybridEP kernel only,GB200,none,16,1,4096,7168,8,128,bf16,661.93,600.75,,,16,logical NVLink; kernel only,,fit
HybridEP torch API,GB200,none,16,1,4096,7168,8,128,fp8,444.67,,,,32,logical NVLink; torch API,,hold
HybridEP torch API,GB200,none,16,1,4096,7168,8,128,bf16,523.48,521.55,,,32,logical NVLink; torch API,,hold
HybridEP kernel only,GB200,none,16,1,4096,7168,8,128,fp8,650.48,,,,32,logical NVLink; kernel only,,hold
HybridEP kernel only,GB200,none,16,1,4096,7168,8,128,bf16,706.95,666.26,,,32,logical NVLink; kernel only,,hold
HybridEP torch API,GB200,none,24,1,4096,7168,8,192,fp8,281.73,,,,16,logical NVLink; torch API,,fit
HybridEP torch API,GB200,none,24,1,4096,7168,8,192,bf16,441.89,444.40,,,16,logical NVLink; torch API,,fit
HybridEP kernel only,GB200,none,24,1,4096,7168,8,192,fp8,360.12,,,,16,logical NVLink; kernel only,,fit
HybridEP kernel only,GB200,none,24,1,4096,7168,8,192,bf16,637.80,565.53,,,16,logical NVLink; kernel only,,fit
HybridEP torch API,GB200,none,24,1,4096,7168,8,192,fp8,403.20,,,,32,logical NVLink; torch API,,hold
HybridEP torch API,GB200,none,24,1,4096,7168,8,192,bf16,507.32,483.76,,,32,logical NVLink; torch API,,hold
HybridEP kernel only,GB200,none,24,1,4096,7168,8,192,fp8,577.96,,,,32,logical NVLink; kernel only,,hold
HybridEP kernel only,GB200,none,24,1,4096,7168,8,192,bf16,665.97,639.80,,,32,logical NVLink; kernel only,,hold
HybridEP torch API,GB200,none,32,1,4096,7168,8,256,fp8,236.33,,,,16,logical NVLink; torch API,,fit
HybridEP torch API,GB200,none,32,1,4096,7168,8,256,bf16,485.50,423.19,,,16,logical NVLink; torch API,,fit
HybridEP kernel only,GB200,none,32,1,4096,7168,8,256,fp8,286.93,,,,16,logical NVLink; kernel only,,fit
HybridEP kernel only,GB200,none,32,1,4096,7168,8,256,bf16,629.79,547.25,,,16,logical NVLink; kernel only,,fit
HybridEP torch API,GB200,none,32,1,4096,7168,8,256,fp8,392.70,,,,32,logical NVLink; torch API,,hold
HybridEP torch API,GB200,none,32,1,4096,7168,8,256,bf16,484.22,464.54,,,32,logical NVLink; torch API,,hold
HybridEP kernel only,GB200,none,32,1,4096,7168,8,256,fp8,538.86,,,,32,logical NVLink; kernel only,,hold
HybridEP kernel only,GB200,none,32,1,4096,7168,8,256,bf16,642.23,605.15,,,32,logical NVLink; kernel only,,hold
HybridEP torch API,GB200,none,36,1,4096,7168,8,288,fp8,215.36,,,,16,logical NVLink; torch API,,fit
HybridEP torch API,GB200,none,36,1,4096,7168,8,288,bf16,469.96,418.27,,,16,logical NVLink; torch API,,fit
HybridEP kernel only,GB200,none,36,1,4096,7168,8,288,fp8,260.53,,,,16,logical NVLink; kernel only,,fit
HybridEP kernel only,GB200,none,36,1,4096,7168,8,288,bf16,612.85,543.27,,,16,logical NVLink; kernel only,,fit
HybridEP torch API,GB200,none,36,1,4096,7168,8,288,fp8,361.13,,,,32,logical NVLink; torch API,,hold
HybridEP torch API,GB200,none,36,1,4096,7168,8,288,bf16,479.02,447.89,,,32,logical NVLink; torch API,,hold
HybridEP kernel only,GB200,none,36,1,4096,7168,8,288,fp8,489.27,,,,32,logical NVLink; kernel only,,hold
HybridEP kernel only,GB200,none,36,1,4096,7168,8,288,bf16,632.31,596.99,,,32,logical NVLink; kernel only,,hold
DeepEP-V1 torch API,B200,none,8,1,4096,7168,8,64,fp8,246,,,,16,logical NVLink; torch API,,fit
DeepEP-V1 torch API,B200,none,8,1,4096,7168,8,64,bf16,348,302,,,16,logical NVLink; torch API,,fit
DeepEP-V1 torch API,B200,none,8,1,4096,7168,8,64,fp8,349,,,,24,logical NVLink; torch API,,hold
DeepEP-V1 torch API,B200,none,8,1,4096,7168,8,64,bf16,494,420,,,24,logical NVLink; torch API,,hold
DeepEP-V1 torch API,B200,none,8,1,4096,7168,8,64,fp8,397,,,,28,logical NVLink; torch API,,fit
DeepEP-V1 torch API,B200,none,8,1,4096,7168,8,64,bf16,560,477,,,28,logical NVLink; torch API,,fit
DeepEP-V1 torch API,B200,none,8,1,4096,7168,8,64,fp8,443,,,,32,logical NVLink; torch API,,hold
DeepEP-V1 torch API,B200,none,8,1,4096,7168,8,64,bf16,619,524,,,32,logical NVLink; torch API,,hold
DeepEP-V1 torch API,B200,none,8,1,4096,7168,8,64,fp8,482,,,,36,logical NVLink; torch API,,fit
DeepEP-V1 torch API,B200,none,8,1,4096,7168,8,64,bf16,635,549,,,36,logical NVLink; torch API,,fit
DeepEP-V1 torch API,B200,none,8,1,4096,7168,8,64,fp8,519,,,,40,logical NVLink; torch API,,hold
DeepEP-V1 torch API,B200,none,8,1,4096,7168,8,64,bf16,629,570,,,40,logical NVLink; torch API,,hold
DeepEP-V1 torch API,B200,none,8,1,4096,7168,8,64,fp8,544,,,,44,logical NVLink; torch API,,fit
DeepEP-V1 torch API,B200,none,8,1,4096,7168,8,64,bf16,640,577,,,44,logical NVLink; torch API,,fit
DeepEP-V1 torch API,B200,none,8,1,4096,7168,8,64,fp8,554,,,,48,logical NVLink; torch API,,hold
DeepEP-V1 torch API,B200,none,8,1,4096,7168,8,64,bf16,646,586,,,48,logical NVLink; torch API,,hold
DeepEP-V1 torch API,GB200,none,8,1,4096,7168,8,64,fp8,248.86,,,,16,logical NVLink; torch API,,fit
DeepEP-V1 torch API,GB200,none,8,1,4096,7168,8,64,bf16,362.01,310.21,,,16,logical NVLink; torch API,,fit
DeepEP-V1 torch API,GB200,none,8,1,4096,7168,8,64,fp8,350.97,,,,24,logical NVLink; torch API,,hold
DeepEP-V1 torch API,GB200,none,8,1,4096,7168,8,64,bf16,512.72,425.95,,,24,logical NVLink; torch API,,hold
DeepEP-V1 torch API,GB200,none,8,1,4096,7168,8,64,fp8,447.76,,,,32,logical NVLink; torch API,,fit
DeepEP-V1 torch API,GB200,none,8,1,4096,7168,8,64,bf16,615.78,519.57,,,32,logical NVLink; torch API,,fit
DeepEP-V1 torch API,GB200,none,16,1,4096,7168,8,128,fp8,242.51,,,,16,logical NVLink; torch API,,hold
DeepEP-V1 torch API,GB200,none,16,1,4096,7168,8,128,bf16,328.80,278.34,,,16,logical NVLink; torch API,,hold
DeepEP-V1 torch API,GB200,none,16,1,4096,7168,8,128,fp8,338.87,,,,24,logical NVLink; torch API,,fit
DeepEP-V1 torch API,GB200,none,16,1,4096,7168,8,128,bf16,442.47,378.32,,,24,logical NVLink; torch API,,fit
DeepEP-V1 torch API,GB200,none,16,1,4096,7168,8,128,fp8,393.72,,,,32,logical NVLink; torch API,,hold
DeepEP-V1 torch API,GB200,none,16,1,4096,7168,8,128,bf16,520.76,442.51,,,32,logical NVLink; torch API,,hold
DeepEP-V1 torch API,GB200,none,24,1,4096,7168,8,192,fp8,258.33,,,,16,logical NVLink; torch API,,fit
DeepEP-V1 torch API,GB200,none,24,1,4096,7168,8,192,bf16,324.64,,,,16,logical NVLink; torch API,,fit
DeepEP-V1 torch API,GB200,none,24,1,4096,7168,8,192,bf16,,126.53,,,16,logical NVLink; torch API,,known failure: combine of V1 collapses beyond 16 NVLink ranks
DeepEP-V1 torch API,GB200,none,24,1,4096,7168,8,192,fp8,351.05,,,,24,logical NVLink; torch API,,hold
DeepEP-V1 torch API,GB200,none,24,1,4096,7168,8,192,bf16,450.22,,,,24,logical NVLink; torch API,,hold
DeepEP-V1 torch API,GB200,none,24,1,4096,7168,8,192,bf16,,163.62,,,24,logical NVLink; torch API,,known failure: combine of V1 collapses beyond 16 NVLink ranks
DeepEP-V1 torch API,GB200,none,24,1,4096,7168,8,192,fp8,405.04,,,,32,logical NVLink; torch API,,fit
DeepEP-V1 torch API,GB200,none,24,1,4096,7168,8,192,bf16,502.84,,,,32,logical NVLink; torch API,,fit
DeepEP-V1 torch API,GB200,none,24,1,4096,7168,8,192,bf16,,207.10,,,32,logical NVLink; torch API,,known failure: combine of V1 collapses beyond 16 NVLink ranks
UCCL-EP,H200,none,8,1,4096,7168,8,256,fp8,,,500,973,24,,,fit
UCCL-EP,B200,none,8,1,4096,7168,8,256,fp8,,,571,727,24,,,hold
UCCL-EP,H200,EFA 2x200Gb/s,16,2,4096,7168,8,288,fp8,,,1196,6379,24,,top-4 groups,known failure: EFA through CPU proxies
UCCL-EP,H200,EFA 2x200Gb/s,24,3,4096,7168,8,288,fp8,,,1633,6365,24,,top-4 groups,known failure: EFA through CPU proxies
UCCL-EP,H200,EFA 2x200Gb/s,32,4,4096,7168,8,288,fp8,,,2022,4899,24,,top-4 groups,known failure: EFA through CPU proxies
UCCL-EP,B200,EFA 400Gb/s,16,2,4096,7168,8,288,fp8,,,1141,1965,24,,top-4 groups,known failure: EFA through CPU proxies
UCCL-EP,B200,EFA 400Gb/s,24,3,4096,7168,8,288,fp8,,,1637,2887,24,,top-4 groups,known failure: EFA through CPU proxies
UCCL-EP,B200,EFA 400Gb/s,32,4,4096,7168,8,288,fp8,,,2072,3724,24,,top-4 groups,known failure: EFA through CPU proxies
NCCL-EP low-latency,H100,CX7 400Gb/s,8,1,128,7168,8,256,bf16,224.3,185.2,,,,LL messages,,hold
NCCL-EP low-latency,H100,CX7 400Gb/s,16,2,128,7168,8,256,bf16,76.7,73.0,,,,LL messages,,fit
NCCL-EP low-latency,H100,CX7 400Gb/s,32,4,128,7168,8,256,bf16,53.6,50.0,,,,LL messages,,hold
NCCL-EP low-latency,H100,CX7 400Gb/s,64,8,128,7168,8,256,bf16,48.8,43.8,,,,LL messages,,fit
UCCL-EP CollectiveX,H200,none,8,1,4096,7168,6,384,bf16,,,937,941,24,payload API calls,,hold
UCCL-EP CollectiveX,H200,none,8,1,8192,7168,6,384,bf16,,,1798,1764,24,payload API calls,,fit
DeepEP-V2 CollectiveX,H200,none,8,1,4096,7168,6,384,bf16,,,1024,960,64,payload API calls,,fit
DeepEP-V2 CollectiveX,H200,none,8,1,4096,7168,6,384,fp8,,,600,950,64,payload API calls,,hold
NCCL-EP CollectiveX,H200,none,8,1,4096,7168,6,384,bf16,,,1087,926,16,payload API calls,,hold
NCCL-EP CollectiveX,H200,none,8,1,8192,7168,6,384,bf16,,,1986,1673,16,payload API calls,,fit
`;
