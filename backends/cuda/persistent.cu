#include "backends/cuda/persistent_attention.cuh"
#include "backends/cuda/persistent_linear.cuh"

namespace quant {
namespace cuda {
namespace persistent {

// A copy of the next instruction is on its way while this one is worked on.
__device__ inline void fetch_instruction(Instruction* to, const Instruction* from) {
    static_assert(sizeof(Instruction) % 16 == 0 && sizeof(Instruction) / 16 <= 64, "two warps copy it");
    const int i = thread_number();
    if (i < static_cast<int>(sizeof(Instruction) / 16))
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                         static_cast<uint32_t>(__cvta_generic_to_shared(reinterpret_cast<uint4*>(to) + i))),
                     "l"(reinterpret_cast<const uint4*>(from) + i)
                     : "memory");
}
__device__ inline void wait_for_instruction() {
    asm volatile("cp.async.wait_all;" ::: "memory");
    synchronize();
}

// No part of a tile has been summed yet.
__device__ inline void clear_segments(int tiles) {
    for (int i = thread_number(); i < tiles * workers * 4; i += threads)
        reinterpret_cast<uint4*>(segments())[i] = make_uint4(0, 0, 0, 0);
}

__device__ inline void write_result(const Instruction& x, const Result& r, Finish& finish) {
    const LinearArguments& a = x.linear;
    const CodecTraits codec = codec_traits(x.codec);
    const float y = r.exists ? finish.result(x, codec, r, sum_segments(r, codec.integer)) : 0;
    if (a.pairs) {
        const float up = __shfl_down_sync(0xffffffffu, y, 1);
        if (r.exists && thread_number() % 2 == 0) give(a.out + r.row, silu_times(y, up));
    } else if (r.exists) {
        give(a.out + r.row, y);
    }
}

__device__ inline Place linear(const StepView& step, int instruction, bool more, Place place) {
    static_assert(most_block_tiles * 16 <= threads, "a thread for each result");
    const Instruction& x = state().instructions[instruction];
    for (int n = 0; n < x.streams; ++n) {
        const WeightStream& w = stream(x.stream + n);
        const BlockTiles tiles(w);
        const Result result(x.linear, w, tiles, thread_number());
        Finish finish;
        finish.load_constants(x, result);
        clear_segments(tiles.count);
        finish.load_add(x.linear, result);
        if (n == 0 && tiles.count > 0) load_input(x, w);  // others must not depend on a block that gives nothing
        synchronize();
        place = multiply(x.codec, x.scales, instruction, x.stream + n, tiles.count, place);
        wait_for_instruction();  // and for all segments
        if (n == 0 && more && state().instructions[1 - instruction].phase == Phase::attention)
            prefetch_cache(step, state().instructions[1 - instruction]);
        write_result(x, result, finish);
        if (n + 1 < x.streams) synchronize();
    }
    return place;
}

// Columns that blocks share.
__device__ inline void copy(const Instruction& x) {
    for (int64_t c = blockIdx.x * threads + thread_number(); c < x.count;
         c += static_cast<int64_t>(gridDim.x) * threads) {
        float v;
        do v = look(x.from + c);
        while (x.awaits_in && !has_come(v));
        give(x.to + c, v);
    }
}

__global__ void __launch_bounds__(threads + 32, 1) run_program(StepView step, PersistentArguments a) {
#if __CUDA_ARCH__ >= 900  // no plan has such a program elsewhere
    if (threadIdx.x == 0) state().shared = a.shared;
    const int words = a.shared.streams * static_cast<int>(sizeof(WeightStream) / 4);
    for (int i = threadIdx.x; i < words; i += threads + 32)
        reinterpret_cast<uint32_t*>(block_memory + a.shared.streams_at)[i] =
            reinterpret_cast<const uint32_t*>(a.streams)[i];
    __syncthreads();
    if (threadIdx.x == 0) Slots().initialize();
    __syncthreads();
    if (threadIdx.x >= threads) {
        if (threadIdx.x == threads) stream_weights();
        return;
    }
    fetch_instruction(&state().instructions[0], a.instructions);
    wait_for_instruction();
    Place place;
    for (int i = 0; i < a.count; ++i) {
        const Instruction& x = state().instructions[i % 2];
        const bool more = i + 1 < a.count;
        if (more) fetch_instruction(&state().instructions[(i + 1) % 2], a.instructions + i + 1);
        if (x.phase == Phase::linear) {
            place = linear(step, i % 2, more, place);
        } else {
            if (x.phase == Phase::attention)
                attention(step, i % 2);
            else
                copy(x);
            wait_for_instruction();
        }
        synchronize();
    }
#endif
}

}  // namespace persistent

void launch_persistent(const DeviceTraits& traits, cudaStream_t stream, StepView step, const PersistentArguments& a) {
    const void* kernel = reinterpret_cast<const void*>(persistent::run_program);
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, a.shared.bytes),
          "shared memory of a kernel");
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(traits.multiprocessors);
    config.blockDim = dim3(persistent::threads + 32);
    config.dynamicSmemBytes = a.shared.bytes;
    config.stream = stream;
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeCooperative;  // all blocks run at once: they wait for each other
    attribute.val.cooperative = 1;
    config.attrs = &attribute;
    config.numAttrs = 1;
    PersistentArguments arguments = a;
    void* pointers[] = {&step, &arguments};
    check(cudaLaunchKernelExC(&config, kernel, pointers), "launch");
}

}  // namespace cuda
}  // namespace quant
