#include "backends/cuda/persistent_attention.cuh"
#include "backends/cuda/persistent_linear.cuh"

namespace quant {
namespace cuda {
namespace persistent {

// A copy of the next instruction is on its way while this one is worked on.
__device__ inline void fetch_instruction(const PersistentArguments& a, int number) {
    static_assert(sizeof(Instruction) % 16 == 0 && sizeof(Instruction) / 16 <= 64, "two warps copy it");
    const int i = thread_number();
    if (number < a.count && i < static_cast<int>(sizeof(Instruction) / 16))
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                         shared_address(reinterpret_cast<uint4*>(&state().instructions[number % 2]) + i)),
                     "l"(reinterpret_cast<const uint4*>(a.instructions + number) + i)
                     : "memory");
}
__device__ inline void wait_for_instruction() {
    asm volatile("cp.async.wait_all;" ::: "memory");
    synchronize();
}

// Where the warp goes next.
__device__ inline int advance(volatile int& place) {
    const int next = place + 1;
    __syncwarp();
    place = next;
    __syncwarp();
    return next;
}

// No part of a tile has been summed yet.
__device__ inline void clear_segments(int tiles) {
    for (int i = thread_number(); i < tiles * workers * 4; i += threads)
        reinterpret_cast<uint4*>(segments())[i] = make_uint4(0, 0, 0, 0);
}

// What a linear reads beside its weights: on its way, or in shared memory.
__device__ inline void prepare_linear() {
    const Instruction& x = instruction();
    const WeightStream& w = stream(mine().stream);
    const ResultConstants constants = load_constants(x, Result(x.linear, w));
    clear_segments(w.block_tiles);
    if (mine().stream == x.stream && w.block_tiles > 0) load_input(x, w);  // others' share gives nothing
    const int thread = thread_number();
    if (thread < most_block_tiles * 16) state().constants[thread] = constants;
    synchronize();
}
__device__ inline void write_results() {
    const Instruction& x = instruction();
    const LinearArguments& a = x.linear;
    const Result r(a, stream(mine().stream));
    const float y = r.exists ? result_of(x, r, sum_segments(r, codec_traits(x.codec).integer)) : 0;
    if (a.pairs) {
        const float up = __shfl_down_sync(0xffffffffu, y, 1);
        if (r.exists && thread_number() % 2 == 0) give(a.out + r.row, silu_times(y, up));
    } else if (r.exists) {
        give(a.out + r.row, y);
    }
}
// True: of the same linear.
__device__ inline bool next_stream() {
    const int next = advance(mine().stream);
    const Instruction& x = instruction();
    return next < x.stream + x.streams;
}
__device__ inline void linear(const StepView& step, int count) {
    static_assert(most_block_tiles * 16 <= threads, "a thread for each result");
    for (;;) {
        prepare_linear();
        multiply();
        wait_for_instruction();  // and for all segments
        const int next = mine().instruction + 1;
        if (next < count && state().instructions[next % 2].phase == Phase::attention)
            prefetch_cache(step, state().instructions[next % 2]);
        write_results();
        if (!next_stream()) return;
        synchronize();
    }
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
    for (int i = threadIdx.x; i < a.shared.streams; i += threads + 32)
        take_share(reinterpret_cast<WeightStream*>(block_memory + a.shared.streams_at)[i]);
    if (threadIdx.x < worker_warps) {
        WarpState& s = state().warps[threadIdx.x];
        s.instruction = s.stream = s.slot = 0;
        s.parity = 0;
    }
    if (threadIdx.x == 0) Slots().initialize();
    __syncthreads();
    if (threadIdx.x >= threads) {
        if (threadIdx.x == threads) stream_weights();
        return;
    }
    fetch_instruction(a, 0);
    wait_for_instruction();
    do {
        fetch_instruction(a, mine().instruction + 1);
        const Phase phase = instruction().phase;
        if (phase == Phase::linear) {
            linear(step, a.count);
        } else {
            if (phase == Phase::attention)
                attention(step);
            else
                copy(instruction());
            wait_for_instruction();
        }
        synchronize();
    } while (advance(mine().instruction) < a.count);
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
