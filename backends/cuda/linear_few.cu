// Products of few rows of bytes on Hopper, limited by reading the weights: both operands come from shared memory, as
// they lie in memory, so that nothing is expanded and few instructions are issued. A block has a tile of 64 weight
// rows, or, as one of a cluster, a part of the tile's columns. One thread copies chunk after chunk of 128 columns into
// a ring, the first of them before the kernel before this one has ended; one warpgroup multiplies them. What the blocks
// of a cluster have of their tile is added by the first, in their order.
#include "backends/cuda/linear_rows.cuh"
#include "backends/cuda/wgmma.cuh"

namespace quant {
namespace cuda {
namespace few {
using Mode = ManyMode;
constexpr int workers = 128, threads = few_threads;
static_assert(threads == workers + 32, "a warpgroup that multiplies, a warp that copies");
constexpr int chunk_bytes = 128, stage_bytes = 4 * 1024, code_bytes = 2 * stage_bytes;  // of a unit

namespace {

template <class Codec, Mode mode, int N>  // N: rows of activations, with those past the last
struct Kernel {
    static constexpr bool integer = mode == Mode::integer;
    using Sum = typename std::conditional<integer, int, float>::type;
    static constexpr int slot_bytes = code_bytes + N * chunk_bytes;
    static constexpr int depth = (72 << 10) / slot_bytes;  // chunks in flight; a multiprocessor has few_blocks blocks
    static constexpr int shared_bytes = 1024 + depth * slot_bytes;
    static constexpr int values = N / 2;  // of a thread: as mma.sync has them, of each 8 rows of activations

    // What the block multiplies.
    struct Work {
        int tile, begin, end;  // of the chunks
        __device__ Work(const LinearArguments& a) : tile(blockIdx.x / a.cluster) {
            const int chunks = static_cast<int>((a.cols + 127) / 128), part = blockIdx.x % a.cluster;
            begin = chunks * part / a.cluster;
            end = chunks * (part + 1) / a.cluster;
        }
    };
    using Ring = wgmma::Ring<slot_bytes, depth>;

    __device__ static void copy_codes(const ManyMaps& maps, const Ring& ring, const Work& work, int chunk) {
        wgmma::barrier_expect(ring.full_barrier(), slot_bytes);
        for (int stage = 0; stage < 2; ++stage)  // stage after stage: see code_descriptor
            wgmma::copy_box(ring.memory() + stage * stage_bytes, maps.weights, 0, (chunk * 2 + stage) * 8,
                            work.tile * 4, ring.full_barrier());
    }
    __device__ static void copy_tokens(const ManyMaps& maps, const Ring& ring, int chunk) {
        wgmma::copy_box(ring.memory() + code_bytes, maps.tokens, chunk * chunk_bytes, 0, 0, ring.full_barrier());
    }
    // Weights never change: those that the ring holds are on their way while the kernel before this one ends.
    __device__ static void produce(const ManyMaps& maps, Ring ring, const Work& work) {
        const int early = min(work.begin + depth, work.end);
        Ring start = ring;
        for (int i = work.begin; i < early; ++i, ring.advance()) copy_codes(maps, ring, work, i);
        wait_for_previous();
        for (int i = work.begin; i < early; ++i, start.advance()) copy_tokens(maps, start, i);
        for (int i = early; i < work.end; ++i, ring.advance()) {
            wgmma::barrier_wait(ring.empty_barrier(), ring.parity ^ 1);
            copy_codes(maps, ring, work, i);
            copy_tokens(maps, ring, i);
        }
    }

    // What a thread's results of a tile are made with: of rows g and g + 8 of its warp's weight tile, loaded while the
    // tile is multiplied.
    struct Factors {
        float2 parameters[2];
        float bias[2], add[values];
    };
    __device__ static int64_t weight_row(int tile, int i) {  // i: 0 or 1
        return tile * int64_t{64} + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + i * 8;
    }
    __device__ static int token(int i) { return i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2; }
    __device__ static Factors load_factors(const LinearArguments& a, int tile, int rows) {
        Factors f = {};
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int64_t r = weight_row(tile, i);
            if (r >= a.weight_rows) continue;
            f.parameters[i] = mode == Mode::e4m3_groups ? make_float2(1, 0) : rows::row_parameters(a, r);
            if (a.bias) f.bias[i] = a.bias[r];
            if (!a.add) continue;
#pragma unroll
            for (int j = 0; j < values; ++j)
                if (j / 2 % 2 == i && token(j) < rows) f.add[j] = a.add[token(j) * a.add_stride + r];
        }
        return f;
    }
    // The scales that a chunk's sums are multiplied with, as they lie in memory.
    __device__ static uint4 load_scales(const LinearArguments& a, int tile_of_64, int chunk) {
        if constexpr (mode != Mode::e4m3_groups) return {};
        const int64_t tile = min(int64_t{tile_of_64} * 4 + threadIdx.x / 32, a.tile_count - 1);
        return load_parameters(a.tiles + tile * a.tile_bytes + a.parameters_at, a.half_parameters,
                               min(chunk * 4 / a.group_blocks, a.last_group), threadIdx.x % 32 / 4);
    }

    __device__ static void write(const LinearArguments& a, int tile, int rows, const Factors& f,
                                 const RowScale (&scales)[values / 2], const Sum (&total)[values]) {
#pragma unroll
        for (int i = 0; i < values; ++i) {
            const int64_t r = weight_row(tile, i / 2 % 2);
            if (token(i) >= rows || r >= a.weight_rows) continue;
            const float2 p = f.parameters[i / 2 % 2];
            const RowScale& x = scales[i / 4 * 2 + i % 2];
            float y;
            if constexpr (integer)
                y = rows::scale_integer(a, p, x, total[i]);
            else
                y = total[i] * p.x * x.scale;
            if (a.bias) y = __fadd_rn(y, f.bias[i / 2 % 2]);
            if (a.add) y = __fadd_rn(y, f.add[i]);
            a.out[token(i) * a.out_stride + r] = y;
        }
    }

    // Adds what the blocks of the cluster have of their tile; the result is the first block's. All threads come here.
    __device__ static void add_parts(const LinearArguments& a, uint32_t memory, Sum (&total)[values]) {
        const bool works = threadIdx.x < workers;
        const uint32_t mine = memory + threadIdx.x * 4;
        if (works && blockIdx.x % a.cluster > 0) {
            asm volatile("bar.sync 1, %0;" ::"n"(workers) : "memory");  // the ring's last chunk has been multiplied
#pragma unroll
            for (int i = 0; i < values; ++i) wgmma::store_shared(mine + i * workers * 4, total[i]);
        }
        wgmma::cluster_barrier();
        if (works && blockIdx.x % a.cluster == 0)
            for (int block = 1; block < a.cluster; ++block)
#pragma unroll
                for (int i = 0; i < values; ++i) {
                    const uint32_t part = wgmma::load_shared_of(block, mine + i * workers * 4);
                    total[i] += reinterpret_cast<const Sum&>(part);
                }
        wgmma::cluster_barrier();  // a block's memory must stay until it has been read
    }

    // The sums of the block's chunks.
    __device__ static void multiply(const LinearArguments& a, Ring ring, const Work& work, Sum (&total)[values]) {
        uint4 next = load_scales(a, work.tile, work.begin);
        for (int chunk = work.begin; chunk < work.end; ++chunk, ring.advance()) {
            const uint4 scales = next;
            next = load_scales(a, work.tile, chunk + 1);
            wgmma::barrier_wait(ring.full_barrier(), ring.parity);
            const uint64_t codes = wgmma::code_descriptor(ring.memory());
            const uint64_t tokens = wgmma::descriptor(ring.memory() + code_bytes);
            Sum sum[values];
            wgmma::fence();
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const uint64_t at = codes + wgmma::descriptor_offset(k / 2 * stage_bytes + k % 2 * 2 * matrix_bytes);
                const uint64_t b = tokens + wgmma::descriptor_offset(k * 32);
                if constexpr (integer)
                    wgmma::product_int8<Codec::is_signed>(sum, at, b, k > 0);
                else
                    wgmma::product_e4m3(sum, at, b, k > 0);
            }
            wgmma::commit();
            wgmma::wait<0>();
            if (threadIdx.x % 32 == 0) wgmma::barrier_arrive(ring.empty_barrier());
            GroupParameters p = {{1, 1}, {0, 0}};
            if constexpr (mode == Mode::e4m3_groups) p = group_parameters(scales, a.half_parameters);
#pragma unroll
            for (int i = 0; i < values; ++i) {
                if constexpr (integer)
                    total[i] += sum[i];
                else
                    total[i] = __fmaf_rn(sum[i], p.scale[i / 2 % 2], total[i]);
            }
        }
    }

    __device__ static void run(const StepView& step, const LinearArguments& a, const ManyMaps& maps, uint32_t slots,
                               uint32_t full, uint32_t empty) {
        const Ring ring{slots, full, empty};
        const Work work(a);
        const bool works = threadIdx.x < workers;
        Sum total[values] = {};
        Factors factors = {};
        RowScale scales[values / 2] = {};
        const int rows = step.rows(a.outputs);
        if (works) {
            wait_for_previous();
#pragma unroll
            for (int i = 0; i < values / 2; ++i) {
                const int x = token(i / 2 * 4 + i % 2);
                if (x < rows) scales[i] = a.row_scales[x];
            }
            if (blockIdx.x % a.cluster == 0) factors = load_factors(a, work.tile, rows);
            multiply(a, ring, work, total);
        } else {
            if (threadIdx.x == workers) produce(maps, ring, work);
            __syncwarp();
            for (int i = 0; i < few_shares; ++i) rows::prefetch_next(a, blockIdx.x * few_shares + i, threadIdx.x % 32);
        }
        if (a.cluster > 1) add_parts(a, slots, total);
        if (works && blockIdx.x % a.cluster == 0) write(a, work.tile, rows, factors, scales, total);
    }
};

template <class Codec, Mode mode, int N>
__global__ void __launch_bounds__(threads, few_blocks)
    linear_few(StepView step, LinearArguments a, const __grid_constant__ ManyMaps maps) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    using K = Kernel<Codec, mode, N>;
    extern __shared__ uint8_t memory[];
    __shared__ uint64_t barriers[2 * K::depth];
    const uint32_t slots = (static_cast<uint32_t>(__cvta_generic_to_shared(memory)) + 1023) / 1024 * 1024;
    const uint32_t full = static_cast<uint32_t>(__cvta_generic_to_shared(barriers)), empty = full + 8 * K::depth;
    if (threadIdx.x == 0) {
        for (int i = 0; i < K::depth; ++i) {
            wgmma::barrier_init(full + 8 * i, 1);
            wgmma::barrier_init(empty + 8 * i, workers / 32);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    allow_next();
    K::run(step, a, maps, slots, full, empty);
#endif
}

template <class Codec, Mode mode>
ManyKernel choose(int rows) {
    const auto kernel_of = [](auto tokens) -> ManyKernel {
        constexpr int N = decltype(tokens)::value;
        return {linear_few<Codec, mode, N>, N, 1024, Kernel<Codec, mode, N>::shared_bytes};
    };
    if (rows <= 8) return kernel_of(std::integral_constant<int, 8>{});
    if (rows <= 16) return kernel_of(std::integral_constant<int, 16>{});
    return kernel_of(std::integral_constant<int, 32>{});
}

}  // namespace
}  // namespace few

ManyKernel few_kernel(Element element, ManyMode mode, int rows) {
    using namespace few;
    if (mode == Mode::e4m3) return choose<Codec8<ByteCode::e4m3>, Mode::e4m3>(rows);
    if (mode == Mode::e4m3_groups) return choose<Codec8<ByteCode::e4m3>, Mode::e4m3_groups>(rows);
    if (element == Element::s8) return choose<Codec8<ByteCode::s8>, Mode::integer>(rows);
    return choose<Codec8<ByteCode::u8>, Mode::integer>(rows);
}

}  // namespace cuda
}  // namespace quant
