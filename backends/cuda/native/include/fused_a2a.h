/*
 * fused-a2a native library: MoE dispatch and combine on the GPUs of one host, or of several
 * through NCCL. Plain C, no Node.
 *
 * Words are those of docs/design.md section 1. "local rank i" is the i-th entry of the group's local_ranks; every array
 * argument "[local]" has one entry per local rank in that order.
 *
 * Threads. Every function may be called from any thread. Calls on one group are serialised by a lock in the group and
 * enqueue their work in the order in which they get it: a caller that wants an order issues the calls in that order (one
 * at a time per group). Functions marked BLOCKS may wait for a device; none of them needs a particular thread, so a
 * binding runs them on worker threads. Waits end after the group's deadline with FA2A_TIMEOUT.
 *
 * Errors. Functions return an fa2a_code and, when it is not FA2A_OK, fill *error (which may be NULL). Nothing is
 * allocated or enqueued by a call that returns FA2A_INVALID_ARGUMENT. Output pointers are only written on FA2A_OK.
 *
 * Objects are opaque, type-tagged and reference counted: *_free drops the caller's reference (NULL is allowed), the
 * memory goes when the last user is done, so a handle, tensor or event outlives the group it came from safely. A pointer
 * of the wrong type or one already freed is reported as FA2A_INVALID_ARGUMENT where it can be recognised.
 *
 * Memory. Tensors live on the device of one rank, rows dense and row-major, base aligned to 256 bytes. Freed memory goes
 * back to the group's pool and is reused by later operations of the group, ordered after everything the group enqueued
 * before and, unless allocate_on_comm_stream was set, after everything the rank's compute stream held at the free.
 */
#ifndef FUSED_A2A_H
#define FUSED_A2A_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define FA2A_API
#else
#define FA2A_API __attribute__((visibility("default")))
#endif

/* Raised whenever a struct below changes its layout; fa2a_abi_version() tells what the library was built with. */
#define FA2A_ABI_VERSION 4

/* ---- Errors: the codes and the grammar of core/errors.ts ---- */

typedef enum fa2a_code {
  FA2A_OK = 0,
  FA2A_INVALID_ARGUMENT = 1,
  FA2A_UNAVAILABLE = 2,
  FA2A_OUT_OF_MEMORY = 3,
  FA2A_BACKEND_FAILURE = 4,
  FA2A_CONTRACT_MISMATCH = 5,
  FA2A_TIMEOUT = 6
} fa2a_code;

/* `message` is the whole line. Where `name` is not empty the other texts hold core/errors.ts's Problem; places are -1
 * when they do not apply. `group_usable` is 0 when the group must be closed (its device work cannot be trusted). */
typedef struct fa2a_error {
  fa2a_code code;
  int32_t rank;
  int64_t token;
  int64_t slot;
  int64_t row;
  int32_t group_usable;
  char name[64];
  char expected[160];
  char received[160];
  char remedy[160];
  char message[2048];
} fa2a_error;

/* ---- Element types: values of core/dtype/dtype.ts in table order ---- */

typedef enum fa2a_dtype {
  FA2A_BF16 = 0,
  FA2A_FP16 = 1,
  FA2A_FP32 = 2,
  FA2A_FP8E4M3 = 3,
  FA2A_U8 = 4,
  FA2A_BOOL = 5,
  FA2A_I16 = 6,
  FA2A_I32 = 7,
  FA2A_I64 = 8
} fa2a_dtype;

/* Bytes of one element; 0 for an unknown value. */
FA2A_API int64_t fa2a_dtype_bytes(fa2a_dtype dtype);

typedef struct fa2a_group fa2a_group;
typedef struct fa2a_tensor fa2a_tensor;
typedef struct fa2a_handle fa2a_handle;
typedef struct fa2a_event fa2a_event;
typedef struct fa2a_graph fa2a_graph;

/* ---- What this machine can do (doctor). None of these needs a group; none fails on a machine without a driver. ---- */

FA2A_API int32_t fa2a_abi_version(void);
/* 1 when this library is the emulated build: devices are imaginary, times mean nothing. */
FA2A_API int32_t fa2a_is_emulated(void);

typedef enum fa2a_driver_state {
  FA2A_DRIVER_USABLE = 0,
  FA2A_DRIVER_MISSING = 1, /* libcuda.so.1 not found */
  FA2A_DRIVER_TOO_OLD = 2, /* supports an older CUDA than this build */
  FA2A_DRIVER_NO_DEVICE = 3, /* no visible GPU */
  FA2A_DRIVER_ERROR = 4 /* anything else: see message */
} fa2a_driver_state;

typedef struct fa2a_driver_info {
  fa2a_driver_state state;
  /* CUDA versions as 1000 * major + 10 * minor; 0 = none. */
  int32_t driver_version;
  int32_t runtime_version;
  int32_t num_devices;
  /* Compute capabilities built in, e.g. "sm_80 sm_90 sm_100 ptx_100", and the compiler. */
  char architectures[128];
  char compiler[128];
  /* One line: what is there or what is missing and how to get it. */
  char message[512];
} fa2a_driver_info;

FA2A_API fa2a_code fa2a_driver(fa2a_driver_info* info, fa2a_error* error);

typedef struct fa2a_device_info {
  int32_t device;
  char name[128];
  char pci_bus_id[32];
  int32_t compute_major;
  int32_t compute_minor;
  int32_t num_sms;
  int64_t total_bytes;
  int64_t free_bytes;
  int32_t l2_bytes;
  int32_t shared_bytes_per_block;
  /* 1 when an image (or the PTX) of this build runs on it. */
  int32_t supported;
} fa2a_device_info;

FA2A_API fa2a_code fa2a_device(int32_t device, fa2a_device_info* info, fa2a_error* error);
/* can_access[i * num_devices + j] = 1 when device i reaches the memory of device j (1 on the diagonal). */
FA2A_API fa2a_code fa2a_peer_matrix(int32_t num_devices, uint8_t* can_access, fa2a_error* error);

typedef struct fa2a_nccl_info {
  int32_t found;
  int32_t version; /* 10000 * major + 100 * minor + patch */
  char path[512];
  char tried[4096]; /* one line per place: what was there */
} fa2a_nccl_info;

/* BLOCKS. Looks for NCCL, which groups over several processes need (docs/clusters.md has the places). */
FA2A_API fa2a_code fa2a_nccl(fa2a_nccl_info* info, fa2a_error* error);

/* A network id is made of pieces of this size. */
#define FA2A_NETWORK_ID_BYTES 128
/* Bytes of the network id of a group whose processes hold num_local_ranks ranks each: those of a node, or one. */
FA2A_API int64_t fa2a_network_id_bytes(int32_t num_ranks, int32_t ranks_per_node, int32_t num_local_ranks);
/* BLOCKS. Made by one process for all of a new group: `id` receives that many bytes. Bring it to the other processes; an id
 * serves one group. */
FA2A_API fa2a_code fa2a_network_id(int32_t num_ranks, int32_t ranks_per_node, int32_t num_local_ranks, uint8_t* id,
                                   fa2a_error* error);

/* ---- Emulated build only; the CUDA build answers FA2A_UNAVAILABLE ---- */

/* Process-wide; applies to groups created afterwards. Zero-filled fields mean the default in parentheses. */
typedef struct fa2a_emulation {
  int32_t num_devices; /* (8) */
  int32_t num_sms; /* blocks in flight per device (8) */
  int32_t compute_major; /* (9); 8 uses the vector-copy paths */
  uint64_t seed; /* (0) = in order and fast; else shuffled schedules */
  int32_t weak_stores; /* (0) 1 = stores become visible to others only when released */
  int32_t slow_device; /* (0) = none; d + 1 = device d runs last whenever it can */
  int32_t stalled_device; /* (0) = none; d + 1 = device d stops: for testing deadlines */
  int64_t device_bytes; /* (64 GiB) allocations past it fail: for testing FA2A_OUT_OF_MEMORY */
  int32_t poison; /* (0); 1 = fill fresh and freed device memory and shared memory with 0xA5 */
} fa2a_emulation;

FA2A_API fa2a_code fa2a_emulation_configure(const fa2a_emulation* settings, fa2a_error* error);

/* ---- Groups ---- */

typedef enum fa2a_combine_path {
  FA2A_COMBINE_PUSH = 0, /* the expert's rank writes one row per (token, rank) into the source's staging memory */
  FA2A_COMBINE_PULL = 1 /* the source reads them from the expert's rank */
} fa2a_combine_path;

/* Zero-initialise, then set what differs from the default in parentheses. */
typedef struct fa2a_group_options {
  int32_t num_ranks;
  int32_t ranks_per_node; /* (num_ranks) must divide num_ranks; fixes the reduction tree (design 2.4) */
  int32_t num_local_ranks; /* (num_ranks) fewer = a group over several processes: the ranks of one node here, or one rank */
  const int32_t* local_ranks; /* [local] ascending, without gaps; NULL = 0..num_local_ranks-1 */
  const int32_t* devices; /* [local] device of each local rank, several ranks may share one; NULL = spread in blocks */
  int32_t num_sms; /* (24) cap for what crosses links, on every rank; results never depend on any of these caps */
  int32_t num_sms_dispatch; /* (num_sms) */
  int32_t num_sms_combine; /* (num_sms) */
  int32_t num_sms_preprocessing; /* (num_sms if given, else all SMs) layout and positions */
  int32_t num_blocks_permute; /* (num_sms if given, else all SMs) local fill of a dispatch */
  int32_t num_blocks_unpermute; /* (num_sms if given, else all SMs) sums at the source of a combine */
  fa2a_combine_path combine_path; /* (push) */
  int32_t record_timings; /* (0) 1 = phases of every operation are timed (fa2a_event_phases) */
  int64_t deadline_ms; /* (0 = 60 000) longest wait of any BLOCKS call; -1 = none */
  const uint8_t* network_id; /* several processes: of fa2a_network_id, the same in each; else NULL */
  int64_t network_id_bytes;
} fa2a_group_options;

/* BLOCKS. Creates streams, enables peer access, builds the tables.
 *
 * Over several processes nobody is waited for here: fa2a_group_connect, or the first operation, meets the others. Every
 * process creates the group, drives one node or one rank, and calls the same
 * operations and fa2a_handle_upload with the same settings in the same order (the caller sees to that before it calls). A
 * new dispatch then always waits once for the counts, and a bad expert id anywhere is FA2A_INVALID_ARGUMENT everywhere;
 * combine_path is push; graphs are FA2A_UNAVAILABLE. When another process fails, waits end with FA2A_BACKEND_FAILURE or FA2A_TIMEOUT, the communicators are aborted and the communication memory
 * is given back: close the group, the process goes on. */
FA2A_API fa2a_code fa2a_group_create(const fa2a_group_options* options, fa2a_group** group, fa2a_error* error);
/* BLOCKS. Waits for everything enqueued (at most the deadline) and gives the memory that no tensor or handle uses back.
 * The pointer is invalid afterwards; tensors, handles and events stay valid (downloads work). */
FA2A_API fa2a_code fa2a_group_close(fa2a_group* group, fa2a_error* error);
/* Changes caps, combine_path, record_timings and deadline of later operations: zero keeps the present value, except
 * combine_path and record_timings, which are always taken. The other fields are ignored. */
FA2A_API fa2a_code fa2a_group_configure(fa2a_group* group, const fa2a_group_options* options, fa2a_error* error);
FA2A_API fa2a_code fa2a_group_set_num_sms(fa2a_group* group, int32_t num_sms, fa2a_error* error);
/* BLOCKS. Waits until the devices have done everything that was enqueued. */
FA2A_API fa2a_code fa2a_group_synchronize(fa2a_group* group, fa2a_error* error);

typedef enum fa2a_stream { FA2A_STREAM_COMM = 0, FA2A_STREAM_COMPUTE = 1 } fa2a_stream;
/* The cudaStream_t of a local rank, for other addons. Operations run on the comm stream, after what the compute stream
 * holds when they are called; unless async_finish is set the compute stream waits for them. */
FA2A_API fa2a_code fa2a_group_stream(fa2a_group* group, int32_t local, fa2a_stream which, void** stream,
                                     fa2a_error* error);

/* What one local rank of a group over several processes has sent since the group was made; zeros in other groups. */
typedef struct fa2a_network_info {
  int64_t rows_dispatched; /* one per (token, other node) */
  int64_t rows_combined; /* one per (token of another node, this node) */
  int64_t row_bytes; /* bytes of those rows: x, scales, weights and probs */
  int64_t metadata_bytes; /* where the rows go: once per new dispatch and row */
  int64_t count_bytes; /* tables of counts: once per new dispatch */
  int64_t link_rows_dispatched; /* rows to other ranks of the node: the rank's own tokens' and those it relays */
  int64_t link_rows_combined; /* rows back to them */
  int64_t link_bytes; /* bytes of those rows */
} fa2a_network_info;
FA2A_API fa2a_code fa2a_group_network(fa2a_group* group, int32_t local, fa2a_network_info* info, fa2a_error* error);
/* Rows that a rank of a group over several processes waits for. */
typedef struct fa2a_wait {
  int32_t rank;
  int32_t src_rank;
  char phase[40]; /* "network rows 2 of 4", "counts", ... */
  int64_t expected_bytes;
  int64_t received_bytes; /* known as a whole alone: 0 */
} fa2a_wait;
/* Meets the other processes, then one word between any two ranks whose rows will cross processes, by every process at once:
 * NCCL connects with the first bytes, which the first operation would wait for. A path that is closed is a failure here. Else nothing; it may be left out. */
FA2A_API fa2a_code fa2a_group_connect(fa2a_group* group, fa2a_error* error);
/* What is outstanding; after a failure: what was then. Up to `capacity`; *num_waits is how many there are. Of any thread. */
FA2A_API fa2a_code fa2a_group_waits(fa2a_group* group, int32_t capacity, fa2a_wait* waits, int32_t* num_waits,
                                    fa2a_error* error);
/* Ends every wait for other processes at once, from any thread and while another call is in the group: for a caller that
 * knows that one of them is gone. `why` is what every later call on the group says. It must then be closed. */
FA2A_API fa2a_code fa2a_group_abort(fa2a_group* group, const char* why, fa2a_error* error);

/* ---- Communication memory (design 2.8) ---- */

typedef struct fa2a_buffer_shape {
  int64_t num_tokens; /* most tokens of any rank */
  int64_t row_bytes; /* bytes of a row as it crosses a link: getHiddenBytes */
  int32_t topk;
  int32_t num_experts;
  int32_t num_ranks;
  int32_t ranks_per_node; /* 0 = num_ranks */
  int64_t num_rows; /* pull: most rows of any rank that are summed before they cross (permuted rows); push: 0 */
  int32_t combine_path; /* fa2a_combine_path */
  int32_t weights; /* 1 = combine carries topk weights too */
} fa2a_buffer_shape;

typedef struct fa2a_buffer_bytes {
  int64_t counts; /* tables of the layout: counts of every source, positions per tile */
  int64_t staging; /* rows that came back, before they are summed */
  int64_t staging_weights;
  int64_t total; /* the sum: what one rank allocates */
} fa2a_buffer_bytes;

/* Pure arithmetic, exactly what an operation of that shape takes per rank. docs/cuda.md has the formulas. */
FA2A_API fa2a_code fa2a_buffer_size(const fa2a_buffer_shape* shape, fa2a_buffer_bytes* bytes, fa2a_error* error);
/* BLOCKS. Makes every local rank hold at least `bytes` of communication memory; never shrinks. */
FA2A_API fa2a_code fa2a_group_reserve(fa2a_group* group, int64_t bytes, fa2a_error* error);
/* BLOCKS. Gives the communication memory back; the next operation allocates what it needs. */
FA2A_API fa2a_code fa2a_group_release(fa2a_group* group, fa2a_error* error);

typedef struct fa2a_memory_info {
  int64_t reserved; /* communication memory held, per rank the same */
  int64_t pool; /* bytes of tensors and handles held by the pool of this local rank, in use or free */
  int64_t pool_free; /* part of `pool` that is free */
  int64_t reallocations; /* how often an operation had to grow the communication memory */
} fa2a_memory_info;
FA2A_API fa2a_code fa2a_group_memory(fa2a_group* group, int32_t local, fa2a_memory_info* info, fa2a_error* error);

/* ---- Tensors on a device ---- */

typedef struct fa2a_tensor_info {
  fa2a_dtype dtype;
  int32_t rank; /* whose device holds it */
  int32_t device;
  int64_t rows;
  int64_t columns; /* 1-D tensors are [rows, 1] */
  int64_t bytes;
  void* data; /* device pointer, for other addons */
} fa2a_tensor_info;

/* BLOCKS when the pool must grow. Contents are undefined (poisoned in the emulation when asked). */
FA2A_API fa2a_code fa2a_tensor_create(fa2a_group* group, int32_t local, fa2a_dtype dtype, int64_t rows, int64_t columns,
                                      fa2a_tensor** tensor, fa2a_error* error);
FA2A_API fa2a_code fa2a_tensor_info_of(const fa2a_tensor* tensor, fa2a_tensor_info* info, fa2a_error* error);
/* BLOCKS. Copies `bytes` from `host` to byte `offset` of the tensor, ordered after everything enqueued; done on return. */
FA2A_API fa2a_code fa2a_tensor_write(fa2a_tensor* tensor, int64_t offset, int64_t bytes, const void* host,
                                     fa2a_error* error);
/* BLOCKS. Copies `bytes` from byte `offset` to `host`, after everything enqueued; done on return. */
FA2A_API fa2a_code fa2a_tensor_read(const fa2a_tensor* tensor, int64_t offset, int64_t bytes, void* host,
                                    fa2a_error* error);
/* Sets all bytes, ordered with the group's operations. */
FA2A_API fa2a_code fa2a_tensor_fill(fa2a_tensor* tensor, int32_t byte, fa2a_error* error);
FA2A_API void fa2a_tensor_free(fa2a_tensor* tensor);

/* An input: either a tensor of this group on the device of its rank, or host memory (then dtype, rows and columns count;
 * it is read before the call returns, through pinned staging). A zero-filled array means "not given". */
typedef struct fa2a_array {
  const fa2a_tensor* tensor;
  const void* host;
  fa2a_dtype dtype;
  int64_t rows;
  int64_t columns;
} fa2a_array;

/* ---- Events (design 2.9) and times ---- */

/* 1 when everything the event stands for is done, 0 when not; after an error of the devices the error's code. */
FA2A_API fa2a_code fa2a_event_query(fa2a_event* event, int32_t* done, fa2a_error* error);
/* BLOCKS. Waits on the host and reports what the devices found: an expert id out of range in device-resident routing is
 * FA2A_INVALID_ARGUMENT here when the operation itself did not wait. */
FA2A_API fa2a_code fa2a_event_wait(fa2a_event* event, fa2a_error* error);
/* EventOverlap.currentStreamWait: the compute streams of all local ranks wait for the event. Does not block. */
FA2A_API fa2a_code fa2a_event_stream_wait(fa2a_event* event, fa2a_error* error);
/* An event after everything the compute streams of the group hold now (DeepEP's capture()). */
FA2A_API fa2a_code fa2a_event_record(fa2a_group* group, fa2a_event** event, fa2a_error* error);

typedef struct fa2a_phase {
  int32_t rank;
  int32_t waiting; /* 1 = waiting for other ranks */
  double start_us; /* from the operation's first phase on any rank of the same device */
  double duration_us;
  char name[24]; /* "layout", "positions", "push", "fill", "reduce", "barrier", ... */
  int32_t src_rank; /* whose rows it waits for; -1 = nobody's alone */
} fa2a_phase;
/* BLOCKS. With record_timings: up to `capacity` phases, all ranks; *num_phases is how many there are. */
FA2A_API fa2a_code fa2a_event_phases(fa2a_event* event, int32_t capacity, fa2a_phase* phases, int32_t* num_phases,
                                     fa2a_error* error);
FA2A_API void fa2a_event_free(fa2a_event* event);

/* ---- Layout ---- */

typedef struct fa2a_layout_result {
  /* Host memory of the caller, one pointer per local rank; NULL (array or entry) = not wanted. */
  int32_t* const* num_tokens_per_rank; /* [num_ranks] */
  int32_t* const* num_tokens_per_node; /* [num_nodes] */
  int32_t* const* num_tokens_per_expert; /* [num_experts] */
  uint8_t* const* is_token_in_rank; /* [tokens, num_ranks] */
} fa2a_layout_result;

/* BLOCKS. topk_idx: [local] of [tokens, topk] i32 or i64; columns may differ between ranks. */
FA2A_API fa2a_code fa2a_layout(fa2a_group* group, const fa2a_array* topk_idx, int32_t num_experts,
                               const fa2a_layout_result* result, fa2a_error* error);

/* Multihot to index form on the device (core/layout/multihot.ts): routing_map [local] of [tokens, experts] bool or u8,
 * probs [local] of [tokens, experts] fp32 or NULL. topk 0 = the largest number of experts of any token of any local rank,
 * at least 1; a topk that is too small is FA2A_INVALID_ARGUMENT. BLOCKS.
 * topk_idx (i32) and, with probs, topk_weights (fp32) receive [local] new tensors [tokens, topk]. */
FA2A_API fa2a_code fa2a_from_multihot(fa2a_group* group, const fa2a_array* routing_map, const fa2a_array* probs,
                                      int32_t topk, fa2a_tensor** topk_idx, fa2a_tensor** topk_weights,
                                      fa2a_error* error);

/* ---- Handles: core/handle/handle.ts ---- */

typedef enum fa2a_kind { FA2A_FUSED = 0, FA2A_HYBRID_EP = 1 } fa2a_kind;

typedef struct fa2a_handle_meta {
  fa2a_kind kind;
  int32_t num_ranks;
  int32_t ranks_per_node;
  int32_t num_experts;
  int32_t topk;
  int32_t expert_alignment; /* 1 = none */
  int64_t num_worst_tokens; /* 0 = exact */
  int64_t pad_multiple; /* 1 = none */
  int64_t num_permuted_tokens; /* -1 = exact (null) */
} fa2a_handle_meta;

/* Sizes of one local rank's arrays. */
typedef struct fa2a_handle_sizes {
  int32_t rank;
  int64_t num_tokens;
  int64_t num_entries; /* W */
  int64_t num_rows;
  int64_t tokens_per_expert_length; /* L, or 0 with num_worst_tokens */
  int64_t num_local_experts; /* L */
  int64_t num_cut; /* rows of `cut` */
  int32_t overflow; /* the flag */
} fa2a_handle_sizes;

/* Host arrays of one local rank, shapes as in RankHandle. Download writes them, upload reads them; NULL = not wanted (or,
 * on upload, allowed only for send_expert and send_slot of fused handles and cut). */
typedef struct fa2a_handle_arrays {
  int32_t* send_rank; /* [num_tokens, W] */
  int32_t* send_row; /* [num_tokens, W] */
  int32_t* send_expert; /* [num_tokens, W], hybrid-ep */
  int32_t* send_slot; /* [num_tokens, W], hybrid-ep */
  int32_t* row_src_rank; /* [num_rows] */
  int32_t* row_src_token; /* [num_rows] */
  int32_t* tokens_per_expert; /* [tokens_per_expert_length] */
  int32_t* num_tokens_per_expert; /* [L] */
  int32_t* cut; /* [num_cut, 4] */
} fa2a_handle_arrays;

FA2A_API fa2a_code fa2a_handle_meta_of(const fa2a_handle* handle, fa2a_handle_meta* meta, fa2a_error* error);
/* BLOCKS (waits for the dispatch that made the handle). */
FA2A_API fa2a_code fa2a_handle_sizes_of(fa2a_handle* handle, int32_t local, fa2a_handle_sizes* sizes,
                                        fa2a_error* error);
/* BLOCKS. */
FA2A_API fa2a_code fa2a_handle_download(fa2a_handle* handle, int32_t local, const fa2a_handle_arrays* arrays,
                                        fa2a_error* error);
/* BLOCKS (over several processes: all of them call it at the same time). A handle of this group from host arrays ([local] sizes and arrays), e.g. one read from a file or made by
 * another backend. Ranks, rows and tokens out of range, or a row named twice, are FA2A_INVALID_ARGUMENT. */
FA2A_API fa2a_code fa2a_handle_upload(fa2a_group* group, const fa2a_handle_meta* meta, const fa2a_handle_sizes* sizes,
                                      const fa2a_handle_arrays* arrays, fa2a_handle** handle, fa2a_error* error);
FA2A_API void fa2a_handle_free(fa2a_handle* handle);

/* ---- Dispatch and combine ---- */

typedef struct fa2a_stream_options {
  fa2a_event* previous_event; /* NULL = what the compute streams hold now */
  int32_t async_finish; /* 1 = return when enqueued; 0 = BLOCKS until done */
  int32_t allocate_on_comm_stream;
  int32_t num_sms; /* 0 = the group's caps; else caps every kernel of this operation */
} fa2a_stream_options;

/* Tensors and handle of one dispatch, filled by fa2a_dispatch; the arrays are [local], owned by the caller, NULL = that
 * output is not wanted (and not made). The caller frees each tensor, the handle and the event. */
typedef struct fa2a_dispatch_result {
  fa2a_tensor** x; /* required unless into: [rows, hidden] of x's dtype; padding and tail rows zero */
  fa2a_tensor** scales; /* [rows, columns] fp32, when scales are given */
  fa2a_tensor** topk_idx; /* fused with routing: [rows, topk] in the routing's id dtype */
  fa2a_tensor** topk_weights; /* fused with weights: [rows, topk] fp32 */
  fa2a_tensor** probs; /* hybrid-ep with weights: [rows, 1] fp32 */
  fa2a_handle* handle; /* a new reference; for a cached dispatch another reference to the request's handle */
  fa2a_event* event;
} fa2a_dispatch_result;

/* New routing: topk_idx set, handle NULL. Cached: handle set, topk_idx and topk_weights NULL, settings ignored.
 *
 * Without a row budget (num_worst_tokens 0, num_permuted_tokens -1) a new dispatch waits once for the counts, whatever
 * async_finish says. With a budget and device-resident inputs nothing waits.
 *
 * `into`: the result of an earlier dispatch of this group with the same shapes and settings (new routing needs a row
 * budget). Its tensors and handle are overwritten, nothing is allocated: `result` then gets new references to the same
 * objects. With async_finish such a call can be captured (fa2a_graph_begin). */
typedef struct fa2a_dispatch_request {
  fa2a_kind kind;
  const fa2a_array* x; /* [local] of [tokens, hidden] bf16, fp16, fp32, fp8e4m3 or u8 */
  const fa2a_array* scales; /* [local] of [tokens, columns] fp32, or NULL */
  const fa2a_array* topk_idx; /* [local] of [tokens, topk] i32 or i64 */
  const fa2a_array* topk_weights; /* [local] of [tokens, topk] fp32, or NULL */
  fa2a_handle* handle;
  int32_t num_experts;
  int32_t expert_alignment; /* 0 and 1 = none */
  int64_t num_worst_tokens; /* 0 = exact */
  int64_t pad_multiple; /* 0 and 1 = none */
  int64_t num_permuted_tokens; /* -1 = exact */
  fa2a_stream_options stream;
  const fa2a_dispatch_result* into;
} fa2a_dispatch_request;

FA2A_API fa2a_code fa2a_dispatch(fa2a_group* group, const fa2a_dispatch_request* request, fa2a_dispatch_result* result,
                                 fa2a_error* error);

typedef struct fa2a_combine_result {
  fa2a_tensor** x; /* [tokens, hidden] of x's dtype */
  fa2a_tensor** topk_weights; /* [tokens, columns] fp32, when given */
  fa2a_tensor** probs; /* [tokens, experts] fp32, when given */
  fa2a_event* event;
} fa2a_combine_result;

typedef struct fa2a_combine_request {
  fa2a_handle* handle;
  const fa2a_array* x; /* [local] of [rows, hidden] bf16, fp16 or fp32 */
  const fa2a_array* topk_weights; /* fused: [local] of [rows, columns] fp32, or NULL */
  const fa2a_array* probs; /* hybrid-ep: [local] of [rows, 1] fp32, or NULL */
  const fa2a_array* bias0; /* fused: [local] of [tokens, hidden] of x's dtype, or NULL */
  const fa2a_array* bias1;
  fa2a_stream_options stream;
  const fa2a_combine_result* into; /* as in fa2a_dispatch_request */
} fa2a_combine_request;

FA2A_API fa2a_code fa2a_combine(fa2a_group* group, const fa2a_combine_request* request, fa2a_combine_result* result,
                                fa2a_error* error);

/* ---- Row operations: no communication. Outputs are [local] new tensors. BLOCKS until done. ---- */

/* [rows, H] bf16, fp16 or fp32 -> fp8e4m3 [rows, H] and fp32 scales [rows, ceil(H / 128)]. */
FA2A_API fa2a_code fa2a_cast_to_fp8(fa2a_group* group, const fa2a_array* x, fa2a_tensor** x_fp8, fa2a_tensor** scales,
                                    fa2a_error* error);
/* fp8e4m3 [rows, H] x fp32 [rows, ceil(H / 128)] -> bf16 [rows, H]. */
FA2A_API fa2a_code fa2a_cast_back(fa2a_group* group, const fa2a_array* x_fp8, const fa2a_array* scales,
                                  fa2a_tensor** x, fa2a_error* error);
/* x[row, :] * factors[row] (product rule of design 2.11), rounded to x's dtype: bf16, fp16 or fp32; factors [rows, 1] fp32. */
FA2A_API fa2a_code fa2a_scale_rows(fa2a_group* group, const fa2a_array* x, const fa2a_array* factors, fa2a_tensor** out,
                                   fa2a_error* error);

/* ---- CUDA graphs: capture non-blocking operations once, replay them with new contents of the same tensors ---- */

/* From here to fa2a_graph_end the group's operations are recorded, not run. Only dispatch and combine with `into`,
 * async_finish, device-resident inputs and (new routing) a row budget are allowed; anything else is
 * FA2A_INVALID_ARGUMENT and ends the capture. */
FA2A_API fa2a_code fa2a_graph_begin(fa2a_group* group, fa2a_error* error);
FA2A_API fa2a_code fa2a_graph_end(fa2a_group* group, fa2a_graph** graph, fa2a_error* error);
/* Enqueues one replay on all local ranks, ordered like an operation with async_finish. The graph keeps the tensors and
 * handles it uses alive. */
FA2A_API fa2a_code fa2a_graph_launch(fa2a_graph* graph, fa2a_event** event, fa2a_error* error);
FA2A_API void fa2a_graph_free(fa2a_graph* graph);

#ifdef __cplusplus
}
#endif

#endif
