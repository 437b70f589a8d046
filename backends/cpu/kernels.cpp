// The kernel tables of the instruction sets: what each kernel accepts, and how its work is cut into phases and items.
#include "backends/cpu/kernels.h"

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "backends/cpu/cpu_backend.h"
#include "backends/cpu/reference.h"
#include "formats/decode.h"

namespace quant {
namespace {

// ---- What kernels accept -----------------------------------------------------------------------------------------

bool is_integer(Element e) {
    return !is_float(e) && e != Element::e4m3;
}

// Float activations, rounded to int8 per 32 columns inside.
bool accepts_linear_int8(const Node&, const Weight* w, const Value* in, const Value*) {
    const Format& f = w->format;
    if (!in || in->type != ValueType::f32 || w->activation != Activation::f32) return false;
    if (!is_integer(f.element) || !rows_layout_holds(f)) return false;
    // The activations' sums, which offsets need, are kept per 32 columns.
    const bool offsets = f.zero == Zero::minimum || f.zero == Zero::integer;
    return !offsets || f.granularity != Granularity::group || f.group % block_cols == 0;
}

// Int8 activations with a scale per row times 8-bit weights with a scale per row: exact in 32 bits up to 66000 columns.
bool accepts_linear_s8(const Node&, const Weight* w, const Value* in, const Value*) {
    const Format& f = w->format;
    const bool one_scale = f.granularity == Granularity::channel || f.granularity == Granularity::tensor;
    return in && in->type == ValueType::s8 && (f.element == Element::s8 || f.element == Element::u8) && one_scale &&
           rows_layout_holds(f) && w->cols <= 65536;
}

bool accepts_linear_float(const Node&, const Weight* w, const Value* in, const Value*) {
    return in && in->type != ValueType::s8 && rows_layout_holds(w->format);
}

#if defined(__x86_64__) || defined(_M_X64)
// One rounding of float activations; the weights are as stored.
bool accepts_linear_bf16(const Node&, const Weight* w, const Value* in, const Value*) {
    return in && in->type == ValueType::f32 && w->format.element == Element::bf16;
}

// Groups of whole blocks, and 8-bit codes that are signed or unsigned once their bias is gone.
bool accepts_linear_int8_amx(const Node& node, const Weight* w, const Value* in, const Value* out) {
    if (!accepts_linear_int8(node, w, in, out)) return false;
    const TileShape t = tile_shape(w->format, w->cols, kernels_amx.lanes);
    return t.group_halves != 1 && (element_bits(t.element) < 8 || t.zero == 0 || t.zero == 128);
}

// Products of two e4m3 are exact in float32; a block of columns has one scale.
bool accepts_linear_e4m3(const Node&, const Weight* w, const Value* in, const Value*) {
    return in && in->type == ValueType::e4m3 && w->format.element == Element::e4m3 && rows_layout_holds(w->format);
}
#endif

bool accepts_any(const Node&, const Weight*, const Value*, const Value*) {
    return true;
}
bool accepts_quantized(const Node&, const Weight*, const Value*, const Value* out) {
    return out && out->type != ValueType::f32;
}
bool accepts_heads(const Node& node, const Weight*, const Value*, const Value*) {
    return node.head_dim % 16 == 0 && node.kv_heads > 0 && node.heads % node.kv_heads == 0;
}

// ---- Linears -----------------------------------------------------------------------------------------------------

int weight_tiles_of(const Weight& w, int lanes) {
    return static_cast<int>((w.rows + lanes - 1) / lanes);
}

// How a linear's weight tiles are cut into items of work. With many rows an item is what stays in the cache while the
// rows pass by, less if that leaves threads without work. With few, reading the weights is all there is to do, and
// memory is read fastest in long runs: each thread's share is one run, in pieces that are each half of what is left, so
// that all end at about the same time. Consecutive items belong to different threads.
struct WeightItems {
    int tiles, each, unit, shares = 1, pieces = 1;  // each: tiles in a piece or, of runs, in a share
    bool runs;

    WeightItems(const CpuKernels& k, const LinearKernel& linear, const TileShape& shape, int tiles, int rows,
                int threads, bool one_stream)
        : tiles(tiles),
          each(linear.weight_tiles),
          unit(rows > 1     ? linear.weight_tiles
               : one_stream ? 1
                            : std::max(k.code_streams, linear.weight_tiles)),
          runs(rows <= 2 * linear.row_tile) {
        if (runs) {
            constexpr size_t least_bytes = 64 << 10;  // of a share
            const size_t most_shares = static_cast<size_t>(tiles) * shape.tile_bytes / least_bytes;
            shares = static_cast<int>(std::max<size_t>(1, std::min<size_t>(threads, most_shares)));
            each = (tiles + shares * each - 1) / (shares * each) * each;
            pieces = 6;
        } else {
            constexpr int least_items = 8;  // of a thread
            const int most = std::min(linear.tiles_together(shape), tiles / (least_items * threads));
            each *= std::max(1, most / each);
            pieces = (tiles + each - 1) / each;
        }
    }
    int count() const { return shares * pieces; }
    int first(int item) const { return runs ? item % shares * each + start(item / shares) : item * each; }
    int size(int item) const {  // <= 0: empty
        const int piece = item / shares;
        return std::min(runs ? start(piece + 1) - start(piece) : each, tiles - first(item));
    }

  private:
    int start(int piece) const {  // of a share
        return piece == pieces ? each : (each - (each >> piece)) / unit * unit;
    }
};

LinearOutput linear_output(const Bound& b) {
    LinearOutput out{};
    out.bias = bias_of(*b.node.weight);
    out.out = f32_row(b.out, 0);
    out.out_stride = b.out.stride;
    out.rows = b.node.weight->rows;
    if (b.node.op == Op::linear_add) {
        out.add = f32_row(b.in[1], 0);
        out.add_stride = b.in[1].stride;
    }
    return out;
}

// How a linear is computed for steps of at most so many rows: `prepare` brings activations into the order that the
// kernel takes them in, row_bytes a row.
struct LinearPath {
    const CpuKernels* kernels;
    const LinearKernel* linear;
    size_t row_bytes;
    bool one_row_in_place;
    std::function<void(const Bound& bound, const TileShape& shape, int first_row, int rows, uint8_t* to)> prepare;
    int most_rows = std::numeric_limits<int>::max();
};

// Phase one prepares the activations in the workspace, a tile of rows an item; phase two multiplies. One row that needs
// no preparation is used where it is.
void emit_linear(Recorder& recorder, const Bound& b, std::vector<LinearPath> by_rows) {
    struct Linear {
        Bound bound;
        std::vector<LinearPath> paths;
        TileShape shape;
        int tiles;
        const LinearPath& path(int rows) const {
            return *std::find_if(paths.begin(), paths.end(), [&](const LinearPath& p) { return rows <= p.most_rows; });
        }
        int rows(const Step& step) const { return row_count(bound.out, step); }
        bool in_place(int rows) const { return rows == 1 && path(rows).one_row_in_place; }
    };
    const int lanes = by_rows[0].kernels->lanes;
    const auto l = std::make_shared<const Linear>(Linear{b, std::move(by_rows),
                                                         tile_shape(b.node.weight->format, b.node.weight->cols, lanes),
                                                         weight_tiles_of(*b.node.weight, lanes)});
    size_t row_bytes = 0, scratch_bytes = 0;
    for (const LinearPath& p : l->paths) {
        row_bytes = std::max(row_bytes, p.row_bytes);
        scratch_bytes = std::max(scratch_bytes, p.linear->scratch(l->shape, std::min(p.most_rows, recorder.max_rows)));
    }
    constexpr size_t read_past = 64;  // bytes that a kernel may read past the activations
    uint8_t* const* workspace = recorder.workspace(row_bytes * recorder.max_rows + read_past);
    recorder.phase(
        [l](const Step& step) {
            const int rows = l->rows(step);
            return l->in_place(rows) ? 0 : row_tiles(rows, l->path(rows).linear->row_tile).tiles;
        },
        [l, workspace](const Step& step, int item, uint8_t*) {
            const LinearPath& p = l->path(l->rows(step));
            const RowTiles tiles = row_tiles(l->rows(step), p.linear->row_tile);
            const int first = tile_first(tiles, item);
            p.prepare(l->bound, l->shape, first, tile_count(tiles, item), *workspace + first * p.row_bytes);
        });
    const int threads = recorder.threads;
    const bool one_stream = recorder.one_stream;
    const auto items_of = [l, threads, one_stream](int rows) {
        const LinearPath& p = l->path(rows);
        return WeightItems(*p.kernels, *p.linear, l->shape, l->tiles, rows, threads, one_stream);
    };
    recorder.phase(
        [l, items_of](const Step& step) {
            const int rows = l->rows(step);
            return rows ? items_of(rows).count() : 0;
        },
        [l, items_of, workspace, one_stream](const Step& step, int item, uint8_t* scratch) {
            const int rows = l->rows(step);
            const WeightItems items = items_of(rows);
            if (items.size(item) <= 0) return;
            const LinearPath& p = l->path(rows);
            const Operand& x = l->bound.in[0];
            const LinearInput in{l->in_place(rows) ? host_pointer(x.data) : *workspace, p.row_bytes,
                                 x.type == ValueType::f32 ? nullptr : row_scales(x), rows};
            const LinearWeights weights{&l->shape, host_pointer(l->bound.node.weight->data), one_stream};
            p.linear->run(weights, in, linear_output(l->bound), items.first(item), items.size(item), scratch);
        },
        scratch_bytes);
}

size_t blocks_of(const Bound& b, const CpuKernels& k) {
    return static_cast<size_t>(tile_shape(b.node.weight->format, b.node.weight->cols, k.lanes).blocks);
}

// `prepare`: the kernels that prepare activations for K's.
template <const CpuKernels& K, const CpuKernels& Preparing = K>
LinearPath int8_path(const Bound& b) {
    return {&K, &K.linear_int8, blocks_of(b, K) * int8_block_bytes, false,
            [](const Bound& bound, const TileShape& t, int first, int rows, uint8_t* to) {
                const Operand& x = bound.in[0];
                Preparing.prepare_int8({f32_row(x, 0), x.stride, x.cols, t.blocks, K.code_bias(t), t.group_halves},
                                       first, rows, to);
            }};
}

template <const CpuKernels& K>
LinearPath s8_path(const Bound& b) {
    return {&K, &K.linear_s8, blocks_of(b, K) * block_cols, true,
            [](const Bound& bound, const TileShape& t, int first, int rows, uint8_t* to) {
                K.prepare_s8(codes_row(bound.in[0], 0), bound.in[0].stride, t.blocks, first, rows, to);
            }};
}

template <const CpuKernels& K>
void emit_linear_int8(Recorder& recorder, const Bound& b) {
    emit_linear(recorder, b, {int8_path<K>(b)});
}

template <const CpuKernels& K>
void emit_linear_s8(Recorder& recorder, const Bound& b) {
    emit_linear(recorder, b, {s8_path<K>(b)});
}

template <const CpuKernels& K>
void emit_linear_float(Recorder& recorder, const Bound& b) {
    const bool floats = b.in[0].type == ValueType::f32;
    emit_linear(recorder, b,
                {{&K, &K.linear_float, blocks_of(b, K) * K.float_block_bytes, floats && K.direct_rows,
                  [](const Bound& bound, const TileShape& t, int first, int rows, uint8_t* to) {
                      const Operand& x = bound.in[0];
                      if (x.type == ValueType::f32)
                          K.prepare_f32(f32_row(x, 0), x.stride, x.cols, t.blocks, first, rows, to);
                      else
                          K.prepare_e4m3(codes_row(x, 0), x.stride, t.blocks, first, rows, to);
                  }}});
}

#if defined(__x86_64__) || defined(_M_X64)
// AMX multiplies many rows; few are limited by reading and decoding weights, which AVX-512 does as it comes. Both give
// the same bits.
void emit_linear_int8_amx(Recorder& recorder, const Bound& b) {
    LinearPath few = int8_path<kernels_avx512>(b);
    few.most_rows = 24;
    emit_linear(recorder, b, {few, int8_path<kernels_amx, kernels_avx512>(b)});
}

void emit_linear_s8_amx(Recorder& recorder, const Bound& b) {
    LinearPath few = s8_path<kernels_avx512>(b), many = s8_path<kernels_amx>(b);
    few.most_rows = 8;
    many.row_bytes = (blocks_of(b, kernels_amx) + 1) / 2 * 2 * block_cols;
    many.one_row_in_place = false;
    emit_linear(recorder, b, {few, many});
}
#endif

// ---- Rows --------------------------------------------------------------------------------------------------------

std::shared_ptr<const std::vector<float>> vector_of(const Weight& weight) {
    WeightView view = stored_view(weight);  // a column or a row
    view.cols *= view.rows;
    view.rows = 1;
    auto values = std::make_shared<std::vector<float>>(static_cast<size_t>(view.cols));
    decode_row(view, 0, values->data());
    return values;
}

template <const CpuKernels& K>
void quantize_row(const Operand& out, int row, const float* values) {
    auto* quantize = out.type == ValueType::s8 ? K.quantize_s8 : K.quantize_e4m3;
    quantize(values, out.cols, codes_row(out, row), row_scales(out) + row);
}

template <const CpuKernels& K>
void emit_rmsnorm(Recorder& recorder, const Bound& b) {
    phase_of_rows(
        recorder, b.out,
        [gains = vector_of(*b.node.weight), in = b.in[0], out = b.out, eps = b.node.eps](const Step&, int row,
                                                                                         uint8_t* scratch) {
            const bool plain = out.type == ValueType::f32;
            float* y = plain ? f32_row(out, row) : reinterpret_cast<float*>(scratch);
            K.rmsnorm(f32_row(in, row), gains->data(), eps, in.cols, y);
            if (!plain) quantize_row<K>(out, row, y);
        },
        b.out.type == ValueType::f32 ? 0 : static_cast<size_t>(b.in[0].cols) * sizeof(float));
}

template <const CpuKernels& K>
void emit_silu_mul(Recorder& recorder, const Bound& b) {
    phase_of_rows(
        recorder, b.out,
        [gate = b.in[0], up = b.in[1], out = b.out](const Step&, int row, uint8_t* scratch) {
            const bool plain = out.type == ValueType::f32;
            float* y = plain ? f32_row(out, row) : reinterpret_cast<float*>(scratch);
            K.silu_mul(f32_row(gate, row), f32_row(up, row), gate.cols, y);
            if (!plain) quantize_row<K>(out, row, y);
        },
        b.out.type == ValueType::f32 ? 0 : static_cast<size_t>(b.in[0].cols) * sizeof(float));
}

template <const CpuKernels& K>
void emit_quantize(Recorder& recorder, const Bound& b) {
    phase_of_rows(recorder, b.out, [in = b.in[0], out = b.out](const Step&, int row, uint8_t*) {
        quantize_row<K>(out, row, f32_row(in, row));
    });
}

template <const CpuKernels& K>
void emit_add(Recorder& recorder, const Bound& b) {
    phase_of_rows(recorder, b.out, [x = b.in[0], y = b.in[1], out = b.out](const Step&, int row, uint8_t*) {
        K.add(f32_row(x, row), f32_row(y, row), out.cols, f32_row(out, row));
    });
}

template <const CpuKernels& K>
void emit_rope(Recorder& recorder, const Bound& b) {
    phase_of_rows(
        recorder, b.out, [x = b.in[0], angles = b.in[1], out = b.out, n = b.node](const Step&, int row, uint8_t*) {
            K.rope(f32_row(x, row), f32_row(angles, row), n.heads, n.head_dim, n.adjacent_pairs, f32_row(out, row));
        });
}

// ---- Cache and attention -----------------------------------------------------------------------------------------

const StepSequence& sequence_of(const Step& step, int row) {
    const StepSequence* found = step.sequences.data();
    for (const StepSequence& s : step.sequences)
        if (row >= s.first_row && row < s.first_row + s.rows) found = &s;
    return *found;
}

// Writes one position of a layer; `scratch` holds head_dim codes.
template <const CpuKernels& K>
void write_cache(const Step& step, int row, const Node& node, const float* k, const float* v, uint8_t* scratch) {
    const int position = step.positions[row], at = position % page_positions, dim = node.head_dim;
    const int32_t page = step.pages[sequence_of(step, row).first_page + position / page_positions];
    const CacheShape& shape = step.cache->shape;
    uint8_t* layer = cache_layer(*step.cache, page, node.layer);
    auto* encode = node.cache == CacheKind::s8 ? K.head_s8 : K.head_e4m3;
    for (int head = 0; head < node.kv_heads; ++head, k += dim, v += dim) {
        uint8_t* const values = layer + shape.values(head) + at * dim * shape.code_bytes();
        if (node.cache == CacheKind::f16) {
            auto* half = reinterpret_cast<uint16_t*>(scratch);
            auto* keys = reinterpret_cast<uint16_t*>(layer + shape.keys(head)) + at;
            K.to_f16(k, dim, half);
            for (int i = 0; i < dim; ++i) keys[i * page_positions] = half[i];
            K.to_f16(v, dim, reinterpret_cast<uint16_t*>(values));
        } else {
            uint8_t* const keys = layer + shape.keys(head) + at;
            reinterpret_cast<uint16_t*>(layer + shape.key_scales(head))[at] = encode(k, dim, scratch);
            for (int i = 0; i < dim; ++i) keys[i * page_positions] = scratch[i];
            reinterpret_cast<uint16_t*>(layer + shape.value_scales(head))[at] = encode(v, dim, values);
        }
    }
}

template <const CpuKernels& K>
void emit_cache_write(Recorder& recorder, const Bound& b) {
    phase_of_rows(
        recorder, b.in[0],
        [node = b.node, k = b.in[0], v = b.in[1]](const Step& step, int row, uint8_t* scratch) {
            write_cache<K>(step, row, node, f32_row(k, row), f32_row(v, row), scratch);
        },
        static_cast<size_t>(b.node.head_dim) * sizeof(uint16_t));
}

template <const CpuKernels& K>
void emit_rope_cache_write(Recorder& recorder, const Bound& b) {
    const size_t turned = static_cast<size_t>(b.node.kv_heads) * b.node.head_dim;
    phase_of_rows(
        recorder, b.out,
        [n = b.node, q = b.in[0], k = b.in[1], v = b.in[2], angles = b.in[3], out = b.out, turned](
            const Step& step, int row, uint8_t* scratch) {
            const float* angle = f32_row(angles, row);
            float* key = reinterpret_cast<float*>(scratch);
            K.rope(f32_row(q, row), angle, n.heads, n.head_dim, n.adjacent_pairs, f32_row(out, row));
            K.rope(f32_row(k, row), angle, n.kv_heads, n.head_dim, n.adjacent_pairs, key);
            write_cache<K>(step, row, n, key, f32_row(v, row), reinterpret_cast<uint8_t*>(key + turned));
        },
        turned * sizeof(float) + static_cast<size_t>(b.node.head_dim) * sizeof(uint16_t));
}

constexpr int queries_per_item = 64;  // shared by one conversion of the pages of K and V

int attention_rows(const Node& node) {
    return std::max(1, queries_per_item / (node.heads / node.kv_heads));
}

struct PageContext {
    const Step& step;
    const StepSequence& sequence;
    int layer;
};
const uint8_t* page_memory(const void* context, int page) {
    const auto& c = *static_cast<const PageContext*>(context);
    return cache_layer(*c.step.cache, c.step.pages[c.sequence.first_page + page], c.layer);
}

template <const CpuKernels& K>
void emit_attention(Recorder& recorder, const Bound& b) {
    const int most = attention_rows(b.node), group = b.node.heads / b.node.kv_heads;
    recorder.phase(
        [most, kv_heads = b.node.kv_heads](const Step& step) {
            int tiles = 0;
            for (const StepSequence& s : step.sequences) tiles += row_tiles(s.rows, most).tiles;
            return tiles * kv_heads;
        },
        [most, group, n = b.node, q = b.in[0], out = b.out](const Step& step, int item, uint8_t* scratch) {
            int tile = item / n.kv_heads;
            const int head = item % n.kv_heads;
            const StepSequence* sequence = step.sequences.data();
            for (int tiles; tile >= (tiles = row_tiles(sequence->rows, most).tiles); ++sequence) tile -= tiles;
            const RowTiles rows = row_tiles(sequence->rows, most);
            const int first = tile_first(rows, tile);
            const PageContext context{step, *sequence, n.layer};
            const CacheShape& shape = step.cache->shape;
            AttentionTile t{};
            t.q = f32_row(q, sequence->first_row + first) + head * group * n.head_dim;
            t.out = f32_row(out, sequence->first_row + first) + head * group * n.head_dim;
            t.q_stride = q.stride;
            t.out_stride = out.stride;
            t.rows = tile_count(rows, tile);
            t.heads = group;
            t.head_dim = n.head_dim;
            t.window = n.window;
            t.first_position = sequence->first_position + first;
            t.scale = n.scale;
            t.page = page_memory;
            t.context = &context;
            t.kind = n.cache;
            t.keys = shape.keys(head);
            t.values = shape.values(head);
            t.key_scales = shape.key_scales(head);
            t.value_scales = shape.value_scales(head);
            K.attention(t, scratch);
        },
        K.scratch_attention(most * group, b.node.head_dim));
}

// ---- The tables --------------------------------------------------------------------------------------------------

// name: of the instruction set, a string literal.
#define QUANT_KERNEL_TABLE(name, K)                                                                       \
    {name " float linear", Op::linear, K.layout, accepts_linear_float, emit_linear_float<K>},             \
        {name " float linear_add", Op::linear_add, K.layout, accepts_linear_float, emit_linear_float<K>}, \
        {name " rmsnorm", Op::rmsnorm, nullptr, accepts_any, emit_rmsnorm<K>},                            \
        {name " rmsnorm_quantize", Op::rmsnorm_quantize, nullptr, accepts_quantized, emit_rmsnorm<K>},    \
        {name " silu_mul", Op::silu_mul, nullptr, accepts_any, emit_silu_mul<K>},                         \
        {name " silu_mul_quantize", Op::silu_mul_quantize, nullptr, accepts_quantized, emit_silu_mul<K>}, \
        {name " quantize", Op::quantize, nullptr, accepts_quantized, emit_quantize<K>},                   \
        {name " add", Op::add, nullptr, accepts_any, emit_add<K>},                                        \
        {name " rope", Op::rope, nullptr, accepts_any, emit_rope<K>},                                     \
        {name " cache_write", Op::cache_write, nullptr, accepts_any, emit_cache_write<K>},                \
        {name " rope_cache_write", Op::rope_cache_write, nullptr, accepts_any, emit_rope_cache_write<K>}, \
        {name " attention", Op::attention, nullptr, accepts_heads, emit_attention<K>},
#define QUANT_S8_KERNELS(name, K)                                                      \
    {name " a8w8 linear", Op::linear, K.layout, accepts_linear_s8, emit_linear_s8<K>}, \
        {name " a8w8 linear_add", Op::linear_add, K.layout, accepts_linear_s8, emit_linear_s8<K>},
#define QUANT_INT8_KERNELS(name, K)                                                                  \
    {name " int8 linear", Op::linear, K.layout, accepts_linear_int8, emit_linear_int8<K>, "s8:g32"}, \
        {name " int8 linear_add", Op::linear_add, K.layout, accepts_linear_int8, emit_linear_int8<K>, "s8:g32"},

#define QUANT_BF16_KERNELS(name, K)                                                            \
    {name " linear", Op::linear, K.layout, accepts_linear_bf16, emit_linear_float<K>, "bf16"}, \
        {name " linear_add", Op::linear_add, K.layout, accepts_linear_bf16, emit_linear_float<K>, "bf16"},
#define QUANT_AMX_INT8_KERNELS                                                                                    \
    {"amx int8 linear", Op::linear, kernels_amx.layout, accepts_linear_int8_amx, emit_linear_int8_amx, "s8:g32"}, \
        {"amx int8 linear_add",   Op::linear_add,       kernels_amx.layout,                                       \
         accepts_linear_int8_amx, emit_linear_int8_amx, "s8:g32"},
#define QUANT_AMX_S8_KERNELS                                                                    \
    {"amx a8w8 linear", Op::linear, kernels_amx.layout, accepts_linear_s8, emit_linear_s8_amx}, \
        {"amx a8w8 linear_add", Op::linear_add, kernels_amx.layout, accepts_linear_s8, emit_linear_s8_amx},
#define QUANT_E4M3_KERNELS(name, K)                                                         \
    {name " e4m3 linear", Op::linear, K.layout, accepts_linear_e4m3, emit_linear_float<K>}, \
        {name " e4m3 linear_add", Op::linear_add, K.layout, accepts_linear_e4m3, emit_linear_float<K>},

template <size_t N>
void append(std::vector<Kernel>& table, const Kernel (&kernels)[N]) {
    table.insert(table.end(), kernels, kernels + N);
}

}  // namespace

void append_baseline_kernels(std::vector<Kernel>& table, bool exact) {
    if (!exact) append(table, {QUANT_INT8_KERNELS("baseline", kernels_baseline)});
    append(table, {QUANT_S8_KERNELS("baseline", kernels_baseline) QUANT_KERNEL_TABLE("baseline", kernels_baseline)});
}

#if defined(__x86_64__) || defined(_M_X64)
void append_avx2_kernels(std::vector<Kernel>& table, bool exact) {
    if (!exact) append(table, {QUANT_INT8_KERNELS("avx2", kernels_avx2)});
    append(table, {QUANT_S8_KERNELS("avx2", kernels_avx2) QUANT_KERNEL_TABLE("avx2", kernels_avx2)});
}

void append_avxvnni_kernels(std::vector<Kernel>& table, bool exact) {
    if (!exact) append(table, {QUANT_INT8_KERNELS("avxvnni", kernels_avxvnni)});
    append(table, {QUANT_S8_KERNELS("avxvnni", kernels_avxvnni) QUANT_KERNEL_TABLE("avx2", kernels_avx2)});
}

void append_avx512_kernels(std::vector<Kernel>& table, bool exact) {
    if (!exact) append(table, {QUANT_INT8_KERNELS("avx512", kernels_avx512)});
    append(table, {QUANT_S8_KERNELS("avx512", kernels_avx512) QUANT_KERNEL_TABLE("avx512", kernels_avx512)});
}

void append_avx512_bf16_kernels(std::vector<Kernel>& table, bool exact) {
    if (!exact) append(table, {QUANT_BF16_KERNELS("avx512_bf16", kernels_avx512_bf16)});
    append(table, {QUANT_E4M3_KERNELS("avx512_bf16", kernels_avx512_bf16)});
    append_avx512_kernels(table, exact);
}

void append_amx_kernels(std::vector<Kernel>& table, bool exact) {
    if (!exact) append(table, {QUANT_BF16_KERNELS("amx", kernels_amx) QUANT_AMX_INT8_KERNELS});
    append(table, {QUANT_AMX_S8_KERNELS});
    append_avx512_bf16_kernels(table, exact);
}
#endif

#if defined(QUANT_ARM)
void append_neon_kernels(std::vector<Kernel>& table, bool exact) {
    if (!exact) append(table, {QUANT_INT8_KERNELS("neon", kernels_neon)});
    append(table, {QUANT_S8_KERNELS("neon", kernels_neon) QUANT_KERNEL_TABLE("neon", kernels_neon)});
}
#endif

#if defined(QUANT_ARM_64)
void append_neon_dotprod_kernels(std::vector<Kernel>& table, bool exact) {
    if (!exact) append(table, {QUANT_INT8_KERNELS("neon_dotprod", kernels_neon_dotprod)});
    append(table, {QUANT_S8_KERNELS("neon_dotprod", kernels_neon_dotprod)
                       QUANT_KERNEL_TABLE("neon_dotprod", kernels_neon_dotprod)});
}

void append_neon_i8mm_kernels(std::vector<Kernel>& table, bool exact) {
    if (!exact) append(table, {QUANT_INT8_KERNELS("neon_i8mm", kernels_neon_i8mm)});
    append(table,
           {QUANT_S8_KERNELS("neon_i8mm", kernels_neon_i8mm) QUANT_KERNEL_TABLE("neon_i8mm", kernels_neon_i8mm)});
}
#endif

}  // namespace quant
