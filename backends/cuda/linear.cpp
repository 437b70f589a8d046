#include "backends/cuda/linear.h"

#include <algorithm>

#include "backends/cuda/emit.h"
#include "formats/error.h"

namespace quant {
namespace cuda {
namespace {

constexpr int most_few_rows = 32;  // that linear_rows.cuh takes where there is another kernel

bool one_scale_per_row(const Format& f) {
    return f.granularity == Granularity::channel || f.granularity == Granularity::tensor;
}
bool is_aligned(const void* p) {
    return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

LinearKernel rows_kernel(const Bound& b, int tiles_of_8, bool rounds) {
    const Weight& w = *b.node.weight;
    const int scales = linear_scales(w);
    if (is_integer_product(b)) return rows_kernel_integer(w.format.element, tiles_of_8, rounds);
    switch (w.format.element) {
        case Element::f16:
        case Element::bf16:
            return rows_kernel_16(w.format.element == Element::bf16, tiles_of_8);
        case Element::s8:
            return rows_kernel_s8(tiles_of_8, scales);
        case Element::e4m3:
            return rows_kernel_e4m3(tiles_of_8, scales, rounds);
        case Element::u4:
            return rows_kernel_u4(tiles_of_8, scales);
        default:
            return rows_kernel_u8(tiles_of_8, scales);
    }
}

// Divides the columns into parts and the weight tiles into groups of them; the bytes of shared memory of a block.
size_t divide_by(int parts, LinearArguments& a, const FragmentTile& tile, bool integer, int tiles_of_8,
                 const DeviceTraits& traits) {
    const int element = integer ? 1 : 2, pad = integer ? 32 : 64;
    a.parts = parts;
    const int stages = (a.stages + a.parts - 1) / a.parts, fewest = std::max(1, a.stages / a.parts);
    const int bytes = stages * tile.stage_cols * element;
    a.x_pitch = bytes + (128 + pad - bytes % 128) % 128;
    a.x_sums = (a.x_rows * std::max(1, stages * tile.stage_cols / 32) + 3) / 4 * 4;  // what follows is aligned
    const int unit = a.pairs ? 2 : 1;
    const int64_t units = a.tile_count / unit;
    a.groups = static_cast<int>(std::min<int64_t>(units, std::max(1, traits.multiprocessors / a.parts)));
    a.group_tiles = static_cast<int>((units + a.groups - 1) / a.groups) * unit;
    const int64_t share = (static_cast<int64_t>(a.group_tiles) * stages + row_warps - 1) / row_warps;
    a.segments = static_cast<int>(std::min<int64_t>(a.group_tiles, share / fewest + 2));
    return static_cast<size_t>(a.x_rows) * a.x_pitch + a.x_sums * sizeof(float) +
           static_cast<size_t>(row_warps) * a.segments * tiles_of_8 * 512;
}

// What blocks read and write in the second-level cache, in bytes: each the activations of its part; parts, whose sums
// are added in the end, also those. They wait for each other as long as it takes to read `waiting`, and the last of
// them for each of the sums that its warps add.
int64_t division_cost(const LinearArguments& a, const FragmentTile& tile, int tiles_of_8) {
    constexpr int64_t waiting = 8 << 20, sum_waiting = 4 << 20;
    const int64_t blocks = int64_t{a.groups} * a.parts, stages = (a.stages + a.parts - 1) / a.parts;
    const int64_t weights = blocks * a.group_tiles * stages * 1024;  // as if all had as many as the first
    const int64_t x = blocks * a.x_rows * stages * tile.stage_cols * (a.in_type == ValueType::f32 ? 4 : 1);
    if (a.parts == 1) return weights + x;
    const int64_t sums = (a.group_tiles * tiles_of_8 + row_warps - 1) / row_warps;
    return weights + x + 2 * blocks * a.group_tiles * tiles_of_8 * 512 + waiting + sums * sum_waiting;
}

// Divides the work as the shared memory allows and it costs least.
size_t divide(LinearArguments& a, const Weight& w, bool integer, int tiles_of_8, const DeviceTraits& traits) {
    const int most_parts = a.rounds ? 1 : 8;  // where fewer fit
    const FragmentTile tile = fragment_tile(w.format, w.cols);
    int best = 0;
    int64_t least = 0;
    for (int parts = 1; parts <= std::max(1, a.stages) && (parts <= most_parts || best == 0); ++parts) {
        if (divide_by(parts, a, tile, integer, tiles_of_8, traits) > traits.shared_memory - 2048) continue;
        const int64_t cost = division_cost(a, tile, tiles_of_8);
        if (best == 0 || cost < least) best = parts, least = cost;
    }
    if (best == 0) fail(QUANT_ERR_UNSUPPORTED, "CUDA: " + w.name + " is too wide for this device's shared memory");
    return divide_by(best, a, tile, integer, tiles_of_8, traits);
}

// Each share (a warp of linear_rows.cuh) fetches the beginning of what the same share will read of the next weight.
void prefetch(LinearArguments& a, const Recorder& recorder, int64_t shares) {
    const Weight* next = recorder.next_weight;
    if (!next || !next->layout) return;
    constexpr int64_t most_bytes = 8 << 10;  // 16 MiB in all: less than what the cache can hold beside the activations
    const int64_t bytes = static_cast<int64_t>(layout_bytes(*next->layout, next->format, next->rows, next->cols));
    a.next = device_pointer(next->data);
    a.next_parts = recorder.next_in_pairs ? 2 : 1;
    a.next_shares = shares;
    a.next_part_stride = bytes / a.next_parts / 16 * 16;
    a.next_stride = a.next_part_stride / a.next_shares / 16 * 16;
    a.next_bytes = static_cast<int>(std::min(most_bytes / a.next_parts, a.next_stride));
}

// How a linear is multiplied by Hopper's own products.
ManyMode wgmma_mode(const DeviceTraits& traits, const Bound& b) {
    if (!traits.wgmma) return ManyMode::none;
    const Format& f = b.node.weight->format;
    const FragmentTile tile = fragment_tile(f, b.node.weight->cols);
    if (is_integer_product(b)) return ManyMode::integer;
    const bool one_scale = is_float(f.element) || one_scale_per_row(f);
    if (b.kernel->emit == emit_linear_e4m3)
        return one_scale ? ManyMode::e4m3 : tile.group_blocks % 4 == 0 ? ManyMode::e4m3_groups : ManyMode::none;
    if (one_scale) return ManyMode::codes;
    if (f.element == Element::e4m3) return tile.group_blocks % 2 == 0 ? ManyMode::promoted : ManyMode::none;
    // Weights rounded to f16, as the activations are; where those are exact codes, the product must be, too.
    return tile.half_parameters && b.in[0].type == ValueType::f32 ? ManyMode::scaled : ManyMode::none;
}
ManyMode many_mode(const DeviceTraits& traits, int max_rows, const Bound& b) {
    return max_rows <= most_few_rows ? ManyMode::none : wgmma_mode(traits, b);
}

// How many clusters of linear_wgmma.cuh run at the same time.
int resident_clusters(const void* kernel, int cluster, int shared_bytes) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
          "shared memory of a kernel");
    cudaLaunchAttribute attribute{};
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = static_cast<unsigned>(cluster);
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(static_cast<unsigned>(cluster));
    config.blockDim = dim3(many_threads);
    config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
    config.attrs = &attribute;
    config.numAttrs = 1;
    int clusters = 0;
    check(cudaOccupancyMaxActiveClusters(&clusters, kernel, &config), "clusters of a kernel");
    return std::max(1, clusters);
}

// The tokens of a tile of the result with which all tiles take the least time, in turns of all multiprocessors.
ManyKernel choose_many(const Recorder& recorder, Element element, ManyMode mode, bool both_shared,
                       int64_t weight_blocks) {
    constexpr int more = 96;  // what a tile costs beside its tokens, in tokens
    ManyKernel best = many_kernel(element, mode, 128);
    int64_t least = 0;
    for (int tokens : {128, 192, 256}) {
        const ManyKernel k = many_kernel(element, mode, tokens);
        const int64_t token_blocks = (recorder.max_rows + k.tokens - 1) / k.tokens;
        const int64_t tiles = both_shared ? (weight_blocks + 1) / 2 * 2 * token_blocks
                                          : weight_blocks * (token_blocks > 1 ? (token_blocks + 1) / 2 * 2 : 1);
        const int64_t turns = (tiles + recorder.traits.multiprocessors - 1) / recorder.traits.multiprocessors;
        const int64_t cost = turns * (k.tokens + more);
        if (least == 0 || cost < least) best = k, least = cost;
    }
    return best;
}

void emit_many(Recorder& recorder, const Bound& b, LinearArguments a, ManyMode mode) {
    const Weight& w = *b.node.weight;
    const int64_t weight_blocks = (a.tile_count + many_tiles - 1) / many_tiles;
    const bool both_shared = multiplies_bytes(fragment_tile(w.format, w.cols).kind, mode);
    const ManyKernel k = choose_many(recorder, w.format.element, mode, both_shared, weight_blocks);
    const int columns = mode >= ManyMode::integer ? 128 : 64;
    const int64_t chunks = many_chunks(w.cols, columns);
    const int blocks = (recorder.max_rows + k.tokens - 1) / k.tokens;
    const LinearKernel lay_out = token_kernel(w.format.element, mode);
    const size_t bytes = lay_out ? static_cast<size_t>(blocks) * chunks * k.tokens * 128 : 0;
    uint8_t* memory = recorder.workspace(lay_out ? bytes + blocks * k.tokens * sizeof(float) : 0);
    if (!recorder.launching()) return;
    constexpr int row = 128;  // bytes
    a.cluster = (both_shared ? weight_blocks : blocks) > 1 ? 2 : 1;
    ManyMaps maps;
    if (lay_out) {
        a.tokens = memory;
        a.x_rows = k.tokens;
        if (mode == ManyMode::codes && a.has_offsets) a.token_sums = reinterpret_cast<float*>(memory + bytes);
        recorder.launch(lay_out, dim3(recorder.max_rows), dim3(256), 0, recorder.view(), a);
        maps.tokens = map_tiles(a.tokens, k.tokens, blocks * chunks, int64_t{k.tokens} * row, k.tokens, 1);
    } else {
        maps.tokens = map_rows(a.in, a.in_stride, recorder.max_rows, k.tokens / a.cluster);
    }
    a.out_aligned = is_aligned(a.out) && is_aligned(a.add) && (a.out_stride | a.add_stride) % 4 == 0;
    maps.weights = map_tiles(a.tiles, a.parameters_at / row, a.tile_count, a.tile_bytes, k.copied_bytes / row,
                             both_shared ? many_tiles : many_tiles / a.cluster);
    const int64_t clusters = both_shared ? (weight_blocks + a.cluster - 1) / a.cluster * blocks
                                         : (blocks + a.cluster - 1) / a.cluster * weight_blocks;
    const int64_t resident = resident_clusters(reinterpret_cast<const void*>(k.kernel), a.cluster, k.shared_bytes);
    recorder.launch_clusters(k.kernel, a.cluster, dim3(static_cast<unsigned>(std::min(clusters, resident) * a.cluster)),
                             dim3(many_threads), k.shared_bytes, recorder.view(), a, maps);
}

// Linears of few rows of bytes: of tiles of 64 weight rows, whose columns a cluster divides as long as all blocks are
// resident at the same time.
void emit_few(Recorder& recorder, const Bound& b, LinearArguments a, ManyMode mode) {
    if (!recorder.launching()) return;
    const Weight& w = *b.node.weight;
    const ManyKernel k = few_kernel(w.format.element, mode, recorder.max_rows);
    const int64_t tiles = (a.tile_count + 3) / 4, most = int64_t{few_blocks} * recorder.traits.multiprocessors;
    constexpr int most_parts = 8, fewest_cols = 512;  // of a part
    for (a.cluster = 1;
         a.cluster < most_parts && tiles * a.cluster * 2 <= most && w.cols >= 2 * a.cluster * fewest_cols;)
        a.cluster *= 2;
    prefetch(a, recorder, tiles * a.cluster * few_shares);
    constexpr int row = 128;  // bytes
    ManyMaps maps;
    maps.tokens = map_rows(a.in, a.in_stride, recorder.max_rows, k.tokens);
    maps.weights = map_tiles(a.tiles, a.parameters_at / row, a.tile_count, a.tile_bytes, k.copied_bytes / row, 4);
    recorder.launch_clusters(k.kernel, a.cluster, dim3(static_cast<unsigned>(tiles * a.cluster)), dim3(few_threads),
                             k.shared_bytes, recorder.view(), a, maps);
}

}  // namespace

bool is_integer_product(const Bound& b) {
    const Format& f = b.node.weight->format;
    return b.in[0].type == ValueType::s8 && !is_float(f.element) && f.element != Element::e4m3 && one_scale_per_row(f);
}

bool can_round_input(const Bound& b) {
    const Weight& w = *b.node.weight;
    if (w.cols > int64_t{4} * row_quads * 32 * row_warps) return false;
    return is_integer_product(b) ||
           (b.in[0].type == ValueType::e4m3 && w.format.element == Element::e4m3 && one_scale_per_row(w.format));
}

LinearArguments linear_arguments(const Bound& b) {
    const Weight& w = *b.node.weight;
    const FragmentTile tile = fragment_tile(w.format, w.cols);
    LinearArguments a{};
    a.tiles = device_pointer(w.data);
    a.tile_bytes = static_cast<int64_t>(tile.bytes);
    a.tile_count = (w.rows + 15) / 16;
    a.stages = tile.stages;
    a.parameters_at = static_cast<int>(tile.parameters_at);
    a.group_blocks = tile.group_blocks;
    a.last_group = std::max(0, tile.groups - 1);
    a.half_parameters = tile.half_parameters;
    a.has_offsets = w.format.zero != Zero::none;
    a.is_minimum = w.format.zero == Zero::minimum;
    set_linear_values(a, b);
    a.in_type = b.in[0].type;
    a.in_aligned = is_aligned(a.in) && a.in_stride % 4 == 0;
    return a;
}

int linear_scales(const Weight& w) {
    if (is_float(w.format.element)) return 0;
    if (one_scale_per_row(w.format)) return 1;
    const FragmentTile tile = fragment_tile(w.format, w.cols);
    return tile.group_blocks * 32 % tile.stage_cols == 0 ? 2 : 3;
}

bool has_tokens_laid_out(const DeviceTraits& traits, int max_rows, const Bound& linear) {
    return many_mode(traits, max_rows, linear) != ManyMode::none;
}

void emit_linear_fragments(Recorder& recorder, const Bound& b) {
    const Weight& w = *b.node.weight;
    LinearArguments a = linear_arguments(b);
    if (recorder.producer) {
        const Bound& producer = *recorder.producer;
        const Operand& x = producer.in[0];
        a.in = device_pointer(x.data);
        a.in_stride = x.stride;
        a.in_type = x.type;
        a.rounds = producer.out.type != ValueType::f32;
        const float* other = nullptr;
        if (producer.node.op == Op::rmsnorm || producer.node.op == Op::rmsnorm_quantize) {
            other = a.norm_gain = reinterpret_cast<const float*>(device_pointer(producer.node.weight->data));
            a.norm_eps = producer.node.eps;
        } else if (producer.node.op == Op::silu_mul) {
            other = a.up = f32_pointer(producer.in[1]);
            a.up_stride = producer.in[1].stride;
        }
        a.in_aligned = is_aligned(a.in) && is_aligned(other) && (a.in_stride | a.up_stride) % 4 == 0;
    }
    if (recorder.consumer) {
        a.pairs = true;
        a.out = f32_pointer(recorder.consumer->out);
        a.out_stride = recorder.consumer->out.stride;
    }
    const ManyMode mode = many_mode(recorder.traits, recorder.max_rows, b);
    if (mode != ManyMode::none) return emit_many(recorder, b, a, mode);
    const ManyMode few = wgmma_mode(recorder.traits, b);
    if (recorder.max_rows > most_rows_repeated && !recorder.producer && !recorder.consumer &&
        multiplies_bytes(fragment_tile(w.format, w.cols).kind, few))
        return emit_few(recorder, b, a, few);
    const int tiles_of_8 = recorder.max_rows <= 8 ? 1 : recorder.max_rows <= 16 ? 2 : 4;
    a.x_rows = std::min(recorder.max_rows, 8 * tiles_of_8);
    const size_t shared = divide(a, w, is_integer_product(b), tiles_of_8, recorder.traits);
    const int chunks = (recorder.max_rows + a.x_rows - 1) / a.x_rows;
    if (a.parts > 1) {
        if (chunks * a.groups > Recorder::counters) fail(QUANT_ERR_UNSUPPORTED, "CUDA: a step of too many rows");
        a.partial = recorder.workspace(static_cast<size_t>(chunks) * a.groups * a.parts * a.group_tiles * tiles_of_8 *
                                       8 * 16 * sizeof(float));
        a.arrived = recorder.zeroed_counters;
    }
    prefetch(a, recorder, static_cast<int64_t>(a.groups) * a.parts * row_warps);
    // More than half of the shared memory: started early, on multiprocessors that others leave at different times, two
    // blocks must not share one while another has none.
    recorder.launch(rows_kernel(b, tiles_of_8, a.rounds), dim3(a.groups * a.parts, chunks), dim3(32 * row_warps),
                    std::max(shared, recorder.traits.shared_memory / 2 + 1024), recorder.view(), a);
}

// The same kernels, but sums of e4m3 products may be Hopper's own.
void emit_linear_e4m3(Recorder& recorder, const Bound& b) {
    emit_linear_fragments(recorder, b);
}

}  // namespace cuda
}  // namespace quant
