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
bool is_integer(const Bound& b) {
    const Format& f = b.node.weight->format;
    return b.in[0].type == ValueType::s8 && !is_float(f.element) && f.element != Element::e4m3 && one_scale_per_row(f);
}

LinearArguments arguments(const Bound& b) {
    const Weight& w = *b.node.weight;
    const FragmentTile tile = fragment_tile(w.format, w.cols);
    LinearArguments a{};
    a.tiles = device_pointer(w.data);
    a.tile_bytes = static_cast<int64_t>(tile.bytes);
    a.tile_count = (w.rows + 15) / 16;
    a.weight_rows = w.rows;
    a.cols = w.cols;
    a.stages = tile.stages;
    a.parameters_at = static_cast<int>(tile.parameters_at);
    a.group_blocks = tile.group_blocks;
    a.last_group = std::max(0, tile.groups - 1);
    a.half_parameters = tile.half_parameters;
    a.has_offsets = w.format.zero != Zero::none;
    a.is_minimum = w.format.zero == Zero::minimum;
    a.bias = bias_of(w);
    a.in = device_pointer(b.in[0].data);
    a.in_stride = b.in[0].stride;
    a.in_type = b.in[0].type;
    a.in_aligned = reinterpret_cast<uintptr_t>(a.in) % 16 == 0 && a.in_stride % 4 == 0;
    if (a.in_type != ValueType::f32) a.row_scales = row_scales(b.in[0]);
    if (b.node.op == Op::linear_add) {
        a.add = f32_pointer(b.in[1]);
        a.add_stride = b.in[1].stride;
    }
    a.out = f32_pointer(b.out);
    a.out_stride = b.out.stride;
    a.outputs = b.out.rows == Rows::outputs;
    return a;
}

int scales_of(const Weight& w) {
    if (is_float(w.format.element)) return 0;
    if (one_scale_per_row(w.format)) return 1;
    const FragmentTile tile = fragment_tile(w.format, w.cols);
    return tile.group_blocks * 32 % tile.stage_cols == 0 ? 2 : 3;
}

LinearKernel rows_kernel(const Bound& b, int tiles_of_8) {
    const Weight& w = *b.node.weight;
    const int scales = scales_of(w);
    if (is_integer(b)) return rows_kernel_integer(w.format.element, tiles_of_8);
    switch (w.format.element) {
        case Element::f16:
        case Element::bf16:
            return rows_kernel_16(w.format.element == Element::bf16, tiles_of_8);
        case Element::s8:
            return rows_kernel_s8(tiles_of_8, scales);
        case Element::e4m3:
            return rows_kernel_e4m3(tiles_of_8, scales);
        case Element::u4:
            return rows_kernel_u4(tiles_of_8, scales);
        default:
            return rows_kernel_u8(tiles_of_8, scales);
    }
}

// Divides the work: as few parts of the columns as the shared memory allows, since parts must be added in the end.
size_t divide(LinearArguments& a, const Weight& w, bool integer, int tiles_of_8, const DeviceTraits& traits) {
    const FragmentTile tile = fragment_tile(w.format, w.cols);
    const int element = integer ? 1 : 2, pad = integer ? 32 : 64;
    const size_t most = traits.shared_memory - 2048;
    for (a.parts = 1; a.parts <= std::max(1, a.stages); ++a.parts) {
        const int stages = (a.stages + a.parts - 1) / a.parts, fewest = std::max(1, a.stages / a.parts);
        const int bytes = stages * tile.stage_cols * element;
        a.x_pitch = bytes + (128 + pad - bytes % 128) % 128;
        a.x_sums = a.x_rows * std::max(1, stages * tile.stage_cols / 32);
        a.groups = static_cast<int>(std::min<int64_t>(a.tile_count, std::max(1, traits.multiprocessors / a.parts)));
        a.group_tiles = static_cast<int>((a.tile_count + a.groups - 1) / a.groups);
        const int64_t share = (static_cast<int64_t>(a.group_tiles) * stages + row_warps - 1) / row_warps;
        a.segments = static_cast<int>(std::min<int64_t>(a.group_tiles, share / fewest + 2));
        const size_t shared = static_cast<size_t>(a.x_rows) * a.x_pitch + a.x_sums * sizeof(float) +
                              static_cast<size_t>(row_warps) * a.segments * tiles_of_8 * 512;
        if (shared <= most) return shared;
    }
    fail(QUANT_ERR_UNSUPPORTED, "CUDA: " + w.name + " is too wide for this device's shared memory");
}

// Many rows on Hopper; false: there is no kernel for it.
bool emit_many(Recorder& recorder, const Bound& b, LinearArguments a) {
    if (recorder.traits.architecture != 90 || recorder.max_rows <= most_few_rows) return false;
    const Weight& w = *b.node.weight;
    const Format& f = w.format;
    const FragmentTile tile = fragment_tile(f, w.cols);
    enum { codes, promoted, scaled, integer } mode = codes;  // many::Mode
    if (is_integer(b)) {
        mode = integer;
    } else if (!is_float(f.element) && !one_scale_per_row(f)) {
        if (f.element == Element::e4m3) {
            if (tile.group_blocks % 2 != 0) return false;
            mode = promoted;
        } else {
            // Weights rounded to f16, as the activations are; where those are exact codes, the product must be, too.
            if (!tile.half_parameters || a.in_type != ValueType::f32) return false;
            mode = scaled;
        }
    }
    const ManyKernel k = many_kernel(f.element, mode, recorder.max_rows > 128);
    const int columns = mode == integer ? 128 : 64;
    const int64_t chunks = (w.cols + columns - 1) / columns;
    const int blocks = (recorder.max_rows + k.tokens - 1) / k.tokens;
    const size_t bytes = static_cast<size_t>(blocks) * chunks * k.tokens * 128;
    uint8_t* memory = recorder.workspace(bytes + blocks * k.tokens * sizeof(float));
    a.tokens = memory;
    a.x_rows = k.tokens;
    if (mode == codes && a.has_offsets) a.token_sums = reinterpret_cast<float*>(memory + bytes);
    recorder.launch(token_kernel(f.element, mode), dim3(recorder.max_rows), dim3(256), 0, recorder.view(), a);
    recorder.launch(k.kernel, dim3(blocks, static_cast<unsigned>((a.tile_count + 7) / 8)), dim3(384), k.shared_bytes,
                    recorder.view(), a);
    return true;
}

}  // namespace

void emit_linear_fragments(Recorder& recorder, const Bound& b) {
    const Weight& w = *b.node.weight;
    LinearArguments a = arguments(b);
    if (recorder.norm) {
        const Operand& x = recorder.norm->in[0];
        a.in = device_pointer(x.data);
        a.in_stride = x.stride;
        a.in_aligned = reinterpret_cast<uintptr_t>(a.in) % 16 == 0 && a.in_stride % 4 == 0;
        a.norm_gain = reinterpret_cast<const float*>(device_pointer(recorder.norm->node.weight->data));
        a.norm_eps = recorder.norm->node.eps;
    }
    if (emit_many(recorder, b, a)) return;
    const int tiles_of_8 = recorder.max_rows <= 8 ? 1 : recorder.max_rows <= 16 ? 2 : 4;
    a.x_rows = std::min(recorder.max_rows, 8 * tiles_of_8);
    const size_t shared = divide(a, w, is_integer(b), tiles_of_8, recorder.traits);
    const int chunks = (recorder.max_rows + a.x_rows - 1) / a.x_rows;
    if (a.parts > 1) {
        if (chunks * a.groups > Recorder::counters) fail(QUANT_ERR_UNSUPPORTED, "CUDA: a step of too many rows");
        a.partial = recorder.workspace(static_cast<size_t>(chunks) * a.groups * a.parts * a.group_tiles * 16 *
                                       a.x_rows * sizeof(float));
        a.arrived = recorder.zeroed_counters;
    }
    recorder.launch(rows_kernel(b, tiles_of_8), dim3(a.groups * a.parts, chunks), dim3(32 * row_warps), shared,
                    recorder.view(), a);
}

}  // namespace cuda
}  // namespace quant
