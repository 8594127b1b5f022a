#!/usr/bin/env python3
"""What a PyTorch user has without this project, on the same shapes: the baseline beside the native self-test's times.

One GPU:      python3 scripts/torch-baseline.py [--tokens 4096 --hidden 7168 --topk 8 --experts 256 --ranks 8]
              permute = index_select of the slots' rows, unpermute = index_add_ into the tokens (Megatron's unfused pair),
              for all ranks' tokens at once, and a device-to-device copy of the same bytes in the same run.
Several GPUs: torchrun --nproc-per-node N scripts/torch-baseline.py --distributed
              permute + NCCL all_to_all_single + unpermute per rank, and all_to_all_single alone from 64 MB to 2 GB.

Times: CUDA events, median of 50 after 10 warm-up rounds, inputs in rotation so that the L2 cache does not help. GB/s count
bytes read plus bytes written of the operation (1 GB = 1e9 bytes).
"""
import argparse
import os
import statistics

import torch


def median_us(step, rounds=50, warmup=10):
    times = []
    for i in range(warmup + rounds):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        step(i)
        end.record()
        end.synchronize()
        if i >= warmup:
            times.append(begin.elapsed_time(end) * 1e3)
    return statistics.median(times)


def routing(tokens, args, device):
    """[tokens, topk] distinct uniform expert ids."""
    return torch.rand(tokens, args.experts, device=device).topk(args.topk, dim=1).indices


def print_row(name, us, read, written):
    print(f"  {name:<34} {us:10.1f} us {(read + written) / 1e6:10.1f} MB {(read + written) / us / 1e3:9.1f} GB/s", flush=True)


def one_gpu(args):
    device = torch.device("cuda")
    tokens = args.tokens * args.ranks
    row = args.hidden * 2
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}")
    print(f"{args.ranks} ranks x {args.tokens} tokens x {args.hidden} bf16, top-{args.topk} of {args.experts}, one device")
    inputs = [torch.randn(tokens, args.hidden, device=device, dtype=torch.bfloat16) for _ in range(2)]
    experts = routing(tokens, args, device).flatten()
    order = torch.argsort(experts, stable=True)
    source = order // args.topk
    slots = source.numel()
    permuted = torch.empty(slots, args.hidden, device=device, dtype=torch.bfloat16)
    other = torch.empty_like(permuted)
    combined = torch.empty(tokens, args.hidden, device=device, dtype=torch.bfloat16)
    print_row("copy of the permuted rows", median_us(lambda i: other.copy_(permuted)), slots * row, slots * row)
    us = median_us(lambda i: torch.index_select(inputs[i % 2], 0, source, out=permuted))
    print_row("permute: index_select", us, slots * row, slots * row)

    def unpermute(_):
        combined.zero_()
        combined.index_add_(0, source, permuted)

    print_row("unpermute: zero_ + index_add_ (bf16)", median_us(unpermute), slots * row, tokens * row)
    print("  index_add_ rounds to bf16 at every add and adds in no fixed order: not the same result, only the same bytes")


def distributed(args):
    import torch.distributed as dist

    dist.init_process_group("nccl")
    rank, world = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    say = print if rank == 0 else lambda *a, **k: None
    version = ".".join(map(str, torch.cuda.nccl.version()))
    say(f"{world} x {torch.cuda.get_device_name()}, PyTorch {torch.__version__}, NCCL {version}")
    for size in (64 << 20, 256 << 20, 1 << 30, 2 << 30):
        data = torch.empty(size, dtype=torch.uint8, device=device)
        out = torch.empty_like(data)
        us = median_us(lambda i: dist.all_to_all_single(out, data), rounds=20, warmup=5)
        say(f"  all_to_all_single {size >> 20:5d} MiB {us:10.1f} us, busbw {size / us / 1e3 * (world - 1) / world:7.1f} GB/s")
        del data, out
    row = args.hidden * 2
    x = torch.randn(args.tokens, args.hidden, device=device, dtype=torch.bfloat16)
    experts = routing(args.tokens, args, device).flatten()
    order = torch.argsort(experts, stable=True)
    source = order // args.topk
    send = torch.bincount(experts // (args.experts // world), minlength=world)
    receive = torch.empty_like(send)
    dist.all_to_all_single(receive, send)
    send, receive = send.tolist(), receive.tolist()
    permuted = torch.empty(source.numel(), args.hidden, device=device, dtype=torch.bfloat16)
    received = torch.empty(sum(receive), args.hidden, device=device, dtype=torch.bfloat16)
    combined = torch.empty_like(x)

    def dispatch(_):
        torch.index_select(x, 0, source, out=permuted)
        dist.all_to_all_single(received, permuted, receive, send)

    def combine(_):
        dist.all_to_all_single(permuted, received, send, receive)
        combined.zero_()
        combined.index_add_(0, source, permuted)

    for name, step in (("dispatch: permute + all_to_all_single", dispatch), ("combine: all_to_all_single + unpermute", combine)):
        us = torch.tensor([median_us(step)], device=device)
        dist.all_reduce(us, op=dist.ReduceOp.MAX)
        remote = (source.numel() - send[rank]) * row
        say(f"  {name:<40} {us.item():10.1f} us (slowest rank's median), wire {remote / us.item() / 1e3:7.1f} GB/s out of rank 0")
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("tokens", 4096), ("hidden", 7168), ("topk", 8), ("experts", 256), ("ranks", 8)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--distributed", action="store_true")
    args = parser.parse_args()
    (distributed if args.distributed else one_gpu)(args)


if __name__ == "__main__":
    main()
