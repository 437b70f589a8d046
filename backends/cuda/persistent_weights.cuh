// The weights of a whole plan as a stream: one thread of each block copies what the block will multiply into a ring in
// shared memory, chunk after chunk and linear after linear, as slots become free. No instruction of the plan holds it
// up.
#pragma once
#include "backends/cuda/persistent.h"
#include "backends/cuda/wgmma.cuh"

namespace quant {
namespace cuda {
namespace persistent {

constexpr int workers = worker_warps;
constexpr int threads = 32 * workers;

// The thread's number, read anew: what follows from it is not kept, at the price of other registers, from one
// instruction of the program to the next.
__device__ inline int thread_number() {
    int number;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(number));
    return number;
}

// Of the workers.
__device__ inline void synchronize() {
    asm volatile("bar.sync 1, %0;" ::"n"(threads) : "memory");
}
// `shared` is used for nothing else by an instruction.
template <class T, class Reduce>
__device__ inline T reduce(T x, T* shared, T neutral, Reduce over_warp) {
    const int thread = thread_number();
    x = over_warp(x);
    if (thread % 32 == 0) shared[thread / 32] = x;
    synchronize();
    return over_warp(thread % 32 < workers ? shared[thread % 32] : neutral);
}

// In pairs, every second tile is of the second half.
__device__ inline int tile_number(const WeightStream& w, int tile) {
    return w.tiles_together == 1 ? tile : tile % 2 * w.second_half + tile / 2;
}

// What follows a block's state in shared memory. Everything there is reached from this name, so that the compiler
// knows where it lies.
extern __shared__ __align__(256) uint8_t block_memory[];
__device__ inline BlockState& state() {
    return *reinterpret_cast<BlockState*>(block_memory);
}
__device__ inline const WeightStream& stream(int number) {
    return reinterpret_cast<const WeightStream*>(block_memory + state().shared.streams_at)[number];
}
// The tiles that a block has: shares differ by one at most. Blocks that have one less of the others have one more of
// those in pairs.
__device__ inline void take_share(WeightStream& w) {
    const int blocks = gridDim.x, block = w.tiles_together == 1 ? blockIdx.x : blocks - 1 - blockIdx.x;
    const int even = w.units / blocks, more = w.units % blocks;
    w.block_first = (w.first_unit + even * block + min(block, more)) * w.tiles_together;
    w.block_tiles = (even + (block < more)) * w.tiles_together;
}
__device__ inline WarpState& mine() {
    return state().warps[thread_number() / 32];
}
__device__ inline const Instruction& instruction() {
    return state().instructions[mine().instruction % 2];
}
__device__ inline uint8_t* activations() {
    return block_memory + state().shared.phase_at;
}
__device__ inline float* activation_sums() {  // per 32 columns, per stage, or of all
    return reinterpret_cast<float*>(block_memory + state().shared.sums_at);
}
__device__ inline uint32_t* segments() {  // [tiles][workers][16]: sums of a warp's part of a tile, float or int
    return reinterpret_cast<uint32_t*>(block_memory + state().shared.segments_at);
}

__device__ inline uint32_t shared_address(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// A slot: the codes of chunk_stages stages that follow each other in the block's tiles, then their parameters. A piece
// of a chunk, in one tile, has those of all groups that it touches, from the place of its first stage on.
struct Slots {
    uint32_t slots, full, empty;  // addresses in shared memory
    int count, bytes;
    __device__ Slots() {
        const PersistentShared& shared = state().shared;
        const uint32_t base = shared_address(block_memory);
        count = shared.slots;
        bytes = shared.slot_bytes;
        slots = base + shared.slots_at;
        full = base + shared.barriers_at;
        empty = full + 8 * most_slots;
    }
    __device__ void initialize() const {
        for (int i = 0; i < count; ++i) {
            wgmma::barrier_init(full + 8 * i, 1);
            wgmma::barrier_init(empty + 8 * i, workers);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
};
__device__ inline int group_of(const WeightStream& w, int stage) {  // of a stage's first block
    return min(stage * w.stage_blocks >> w.group_shift, w.last_group);
}

__device__ inline void expect_more(uint32_t barrier, uint32_t bytes) {  // without arriving
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

// Weights are read once: other things stay in the second-level cache rather than they.
__device__ inline uint64_t read_once() {
    uint64_t policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}
__device__ inline void copy_weights(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier, uint64_t policy) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::
            "r"(to),
        "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
        : "memory");
}

// The thread that copies. While blocks wait for each other's values, chunks come one by one: the values would queue
// behind more of them.
__device__ inline void stream_weights() {
    const Slots s;
    const int streams = state().shared.streams;
    const uint64_t policy = read_once();
    int slot = 0, on_the_way = 0, arriving = 0;
    uint32_t parity = 1, arriving_parity = 0;  // all slots are empty
    for (int n = 0; n < streams; ++n) {
        const WeightStream w = stream(n);
        const uint8_t* tile = w.tiles + static_cast<int64_t>(tile_number(w, w.block_first)) * w.tile_bytes;
        int number = 0, stage = 0, ready = 0;
        for (int left = w.block_tiles * w.stages; left > 0; left -= chunk_stages) {
            const uint32_t full = s.full + 8 * slot, to = s.slots + slot * s.bytes;
            const int stages = min(left, chunk_stages);
            wgmma::barrier_wait(s.empty + 8 * slot, parity);
            const int most = ready++ < s.count ? most_in_waiting : s.count;
            for (++on_the_way; on_the_way > most; --on_the_way) {
                wgmma::barrier_wait(s.full + 8 * arriving, arriving_parity);
                if (++arriving == s.count) {
                    arriving = 0;
                    arriving_parity ^= 1;
                }
            }
            for (int at = 0; at < stages;) {
                const int piece = min(stages - at, w.stages - stage);
                const int group = group_of(w, stage);
                const int last = min(((stage + piece) * w.stage_blocks - 1) >> w.group_shift, w.last_group);
                const uint32_t codes = piece * 1024, parameters = (last - group + 1) * w.group_bytes;
                expect_more(full, codes + parameters);
                copy_weights(to + at * 1024, tile + stage * 1024, codes, full, policy);
                if (parameters)
                    copy_weights(to + chunk_stages * 1024 + at * w.stage_parameters,
                                 tile + w.parameters_at + group * w.group_bytes, parameters, full, policy);
                at += piece;
                stage += piece;
                if (stage == w.stages) {
                    stage = 0;
                    ++number;
                    tile = w.tiles + static_cast<int64_t>(tile_number(w, w.block_first + number)) * w.tile_bytes;
                }
            }
            wgmma::barrier_arrive(full);
            if (++slot == s.count) {
                slot = 0;
                parity ^= 1;
            }
        }
    }
}

}  // namespace persistent
}  // namespace cuda
}  // namespace quant
