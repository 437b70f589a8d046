#include "backends/cuda/persistent.h"

#include <algorithm>
#include <array>

#include "formats/error.h"

namespace quant {
namespace cuda {
namespace {

constexpr size_t alignment = 256;
size_t align(size_t n) {
    return (n + alignment - 1) / alignment * alignment;
}

// Thrown inside only: the plan is not one for the persistent kernel.
struct Unsupported {};
void require(bool supported) {
    if (!supported) throw Unsupported();
}

bool contains(const Slice& whole, const Slice& part) {
    return whole.buffer == part.buffer && whole.offset <= part.offset &&
           part.offset + part.bytes <= whole.offset + whole.bytes;
}
Slice row_slice(const Operand& o) {  // of the one row
    return {o.data.buffer, o.data.offset, static_cast<size_t>(o.cols) * sizeof(float)};
}

class Compiler {
  public:
    Compiler(const std::vector<Bound>& nodes, const DeviceTraits& traits, uint8_t* memory, PersistentProgram& program)
        : nodes_(nodes), traits_(traits), memory_(memory), program_(program), made_(nodes.size()) {}

    void compile() {
        find_sources();
        for (size_t i = 0; i < nodes_.size(); ++i) {
            const Bound& b = nodes_[i];
            switch (b.node.op) {
                case Op::embed:
                case Op::rope_angles:
                    require(i == program_.before++);
                    break;
                case Op::select_rows:
                    select_rows(i);
                    break;
                case Op::linear:
                case Op::linear_add:
                    linear(i);
                    break;
                case Op::attention:
                    attention(i);
                    break;
                case Op::rmsnorm:  // where it is read
                case Op::quantize:
                case Op::rmsnorm_quantize:
                case Op::silu_mul:
                case Op::silu_mul_quantize:
                case Op::rope_cache_write:
                    break;
                default:
                    throw Unsupported();
            }
        }
        for (size_t i = program_.before; i < nodes_.size(); ++i) require(made_[i].read || made_[i].value);
        require(!program_.streams.empty());
        check_outputs();
        program_.memory = used_;
        divide_shared_memory();
    }

  private:
    struct Row {
        const float* at;
        bool awaited;
    };

    // What a node's result has become.
    struct Made {
        float* value = nullptr;  // where it lies; null: nowhere (readers compute it, or there is none)
        bool is_wanted = false;  // a node reads it
        bool read = false;       // and that has been seen to
    };

    // The node whose result an input is a part of, and from which column on; -1: none of the plan.
    struct Source {
        int node = -1;
        int64_t column = 0;
    };
    void find_sources() {
        sources_.resize(nodes_.size());
        for (size_t i = 0; i < nodes_.size(); ++i)
            for (int n = 0; n < 4; ++n) {
                if (nodes_[i].node.in[n] < 0) continue;
                const Operand& in = nodes_[i].in[n];
                const Slice part = in.type == ValueType::f32 ? row_slice(in) : in.data;
                for (size_t j = i; j-- > 0;) {
                    const Operand& out = nodes_[j].out;
                    const Slice whole = out.type == ValueType::f32 ? row_slice(out) : out.data;
                    if (nodes_[j].node.out < 0 || !overlap(whole, part)) continue;
                    require(contains(whole, part) && out.type == in.type);
                    sources_[i][n] = {static_cast<int>(j),
                                      static_cast<int64_t>((part.offset - whole.offset) / sizeof(float))};
                    made_[j].is_wanted = true;
                    break;
                }
            }
    }
    bool is_of_program(int node) const { return node >= static_cast<int>(program_.before); }

    // Float input n of node i, which the instruction in the making reads.
    Row source(size_t i, int n) {
        const Operand& in = nodes_[i].in[n];
        require(in.type == ValueType::f32);
        const Source from = sources_[i][n];
        if (!is_of_program(from.node)) {
            inputs_.push_back({row_slice(in), static_cast<int>(program_.instructions.size())});
            return {f32_pointer(in), false};
        }
        require(made_[from.node].value != nullptr);
        return {reads(from.node) + from.column, true};
    }
    float* reads(int j) {
        made_[j].read = true;
        return made_[j].value;
    }

    float* allocate(int64_t cols) {
        float* at = reinterpret_cast<float*>(memory_ + used_);
        used_ += align(static_cast<size_t>(cols) * sizeof(float));
        return memory_ ? at : reinterpret_cast<float*>(alignment);  // not null, for sizes
    }
    // Memory for a result: of its own if the plan reads it, so that it is absent until it is written.
    float* result(size_t i) {
        require(nodes_[i].out.type == ValueType::f32);
        if (made_[i].is_wanted) return made_[i].value = allocate(nodes_[i].out.cols);
        outputs_.push_back({row_slice(nodes_[i].out), static_cast<int>(program_.instructions.size())});
        return made_[i].value = f32_pointer(nodes_[i].out);
    }

    // Of one row: the same row.
    void select_rows(size_t i) {
        const Source from = sources_[i][0];
        if (is_of_program(from.node) && made_[from.node].value && made_[i].is_wanted) {
            made_[i].value = reads(from.node) + from.column;
            return;
        }
        Instruction x{};
        x.phase = Phase::copy;
        const Row from_row = source(i, 0);
        x.from = from_row.at;
        x.awaits_in = from_row.awaited;
        x.count = nodes_[i].out.cols;
        x.to = result(i);
        program_.instructions.push_back(x);
    }

    // The silu_mul of the two halves of linear i, which nothing else reads; or -1.
    int silu_of(size_t i) const {
        int silu = -1;
        for (size_t k = i + 1; k < nodes_.size(); ++k)
            for (int n = 0; n < 4; ++n) {
                if (sources_[k][n].node != static_cast<int>(i)) continue;
                const Op op = nodes_[k].node.op;
                const int64_t half = nodes_[k].out.cols;
                const bool is_half = (op == Op::silu_mul || op == Op::silu_mul_quantize) &&
                                     sources_[k][n].column == n * half && nodes_[i].out.cols == 2 * half &&
                                     half % 16 == 0;
                if (!is_half || (silu >= 0 && silu != static_cast<int>(k))) return -1;
                silu = static_cast<int>(k);
            }
        return silu;
    }

    // The activations of a linear: a float row, perhaps normed, perhaps to be rounded to codes.
    void input(size_t i, Instruction& x) {
        LinearArguments& a = x.linear;
        x.rounds_to = ValueType::f32;
        a.in = nullptr;
        const Source from = sources_[i][0];
        size_t reader = i;
        if (is_of_program(from.node) && !made_[from.node].value) {
            const Bound& producer = nodes_[from.node];
            const Op op = producer.node.op;
            require(from.column == 0 && producer.out.cols == nodes_[i].in[0].cols);
            made_[from.node].read = true;
            x.rounds_to = producer.out.type;
            if (op == Op::rmsnorm || op == Op::rmsnorm_quantize) {
                require(producer.in[0].cols <= most_normed_quads * quad_columns);
                a.norm_gain = reinterpret_cast<const float*>(device_pointer(producer.node.weight->data));
                a.norm_eps = producer.node.eps;
            } else if (op == Op::silu_mul || op == Op::silu_mul_quantize) {
                const int gate = sources_[from.node][0].node;
                require(gate >= 0 && silu_of(gate) == from.node && made_[gate].value);
                a.in = reinterpret_cast<const uint8_t*>(reads(gate));
                x.awaits_in = true;
            } else {
                require(op == Op::quantize);
            }
            reader = from.node;
        }
        a.in_type = ValueType::f32;
        a.row_scales = nullptr;
        if (!a.in) {
            const Row row = source(reader, 0);
            a.in = reinterpret_cast<const uint8_t*>(row.at);
            x.awaits_in = row.awaited;
        }
        require(reinterpret_cast<uintptr_t>(a.in) % 16 == 0);
    }

    void linear(size_t i) {
        const Bound& b = nodes_[i];
        const Weight& w = *b.node.weight;
        require(b.kernel->weights == &layout_fragments && w.cols <= most_quads * quad_columns && w.cols % 4 == 0);
        Instruction x{};
        x.phase = Phase::linear;
        LinearArguments& a = x.linear = linear_arguments(b);
        input(i, x);
        if (b.node.op == Op::linear_add) {
            const Row row = source(i, 1);
            a.add = row.at;
            x.awaits_add = row.awaited;
        }
        const int silu = silu_of(i);
        a.pairs = silu >= 0;
        if (a.pairs) {
            a.out = made_[i].value = allocate(nodes_[silu].out.cols);
        } else {
            a.out = result(i);
        }
        x.codec = codec(b);
        x.scales = static_cast<int8_t>(linear_scales(w));
        x.stream = static_cast<int>(program_.streams.size());
        append_streams(w, a);
        x.streams = static_cast<int>(program_.streams.size()) - x.stream;
        program_.instructions.push_back(x);
    }

    static Codec codec(const Bound& b) {
        const Element e = b.node.weight->format.element;
        if (is_integer_product(b))
            return e == Element::s8 ? Codec::integer_s8 : e == Element::u4 ? Codec::integer_u4 : Codec::integer_u8;
        switch (e) {
            case Element::f16:
                return Codec::f16;
            case Element::bf16:
                return Codec::bf16;
            case Element::s8:
                return Codec::s8;
            case Element::e4m3:
                return Codec::e4m3;
            case Element::u4:
                return Codec::u4;
            default:
                return Codec::u8;
        }
    }

    void append_streams(const Weight& w, const LinearArguments& a) {
        WeightStream s{};
        s.tiles = a.tiles;
        s.tile_bytes = static_cast<uint32_t>(a.tile_bytes);
        s.tiles_together = a.pairs ? 2 : 1;
        const int units = static_cast<int>(a.tile_count / s.tiles_together);
        s.second_half = units;
        s.stages = a.stages;
        s.stages_inverse = ((1 << 20) + a.stages - 1) / a.stages;
        s.stage_blocks = fragment_tile(w.format, w.cols).stage_cols / 32;
        s.parameters_at = a.parameters_at;
        s.last_group = a.last_group;
        require(reinterpret_cast<uintptr_t>(a.tiles) % 16 == 0 && a.tile_bytes % 16 == 0);
        if (linear_scales(w) >= 2) {
            s.group_bytes = a.half_parameters ? 64 : 128;
            while (1 << s.group_shift < a.group_blocks) ++s.group_shift;
            require(1 << s.group_shift == a.group_blocks);
            s.stage_parameters = std::max(1, s.stage_blocks >> s.group_shift) * s.group_bytes;
        }
        const int most = traits_.multiprocessors * (most_block_tiles / s.tiles_together);
        for (s.first_unit = 0; s.first_unit < units; s.first_unit += s.units) {
            s.units = std::min(most, units - s.first_unit);
            program_.streams.push_back(s);
        }
    }

    void attention(size_t i) {
        const Bound& b = nodes_[i];
        const int j = sources_[i][0].node;
        require(j >= 0 && sources_[i][0].column == 0 && nodes_[j].node.op == Op::rope_cache_write && !made_[j].read);
        const Bound& turn = nodes_[j];
        const Node &n = b.node, &t = turn.node;
        require(n.layer == t.layer && n.heads == t.heads && n.kv_heads == t.kv_heads && n.head_dim == t.head_dim &&
                n.cache == t.cache && (n.head_dim == 64 || n.head_dim == 128));
        made_[j].read = true;
        Instruction x{};
        x.phase = Phase::attention;
        x.attention = attention_arguments(b);
        x.rope = rope_arguments(turn);
        const Row q = source(j, 0), k = source(j, 1), v = source(j, 2), angles = source(j, 3);
        require(q.awaited && k.awaited && v.awaited && !angles.awaited);
        x.rope.q = q.at;
        x.rope.k = k.at;
        x.rope.v = v.at;
        x.rope.angles = angles.at;
        const int per_kv = n.heads / n.kv_heads;
        x.heads_together = per_kv == 1 ? 1 : 4;
        x.groups = (per_kv + x.heads_together - 1) / x.heads_together;
        const int items = n.kv_heads * x.groups;
        x.splits = std::max(1, traits_.multiprocessors / items);
        x.partial = allocate(int64_t{items} * x.splits * x.heads_together * (n.head_dim + 2));
        x.attention.out = result(i);
        program_.instructions.push_back(x);
    }

    void divide_shared_memory() {
        PersistentShared& s = program_.shared;
        s.streams = static_cast<int>(program_.streams.size());
        size_t activations = 0, sums = 0, attention = 0;
        int parameters = 0;
        for (const Instruction& x : program_.instructions) {
            if (x.phase == Phase::attention) {
                const int h = x.heads_together, dim = x.attention.head_dim;
                attention = std::max(attention, attention_shared_bytes(h, dim));
            }
            if (x.phase != Phase::linear) continue;
            const WeightStream& w = program_.streams[x.stream];
            const size_t columns = static_cast<size_t>(w.stages) * w.stage_blocks * 32;
            activations = std::max(activations, columns * 2);
            sums = std::max(sums, columns / 32 * sizeof(float));
            parameters = std::max(parameters, chunk_stages * w.stage_parameters);
        }
        s.slot_bytes = chunk_stages * 1024 + parameters;
        const size_t streams = align(s.streams * sizeof(WeightStream));
        const size_t barriers = align(2 * most_slots * sizeof(uint64_t));
        const size_t segments = most_block_tiles * worker_warps * 16 * sizeof(float);
        const size_t phase = std::max(align(activations) + align(sums) + segments, align(attention));
        const size_t state = align(sizeof(BlockState)), fixed = state + streams + barriers + phase;
        const size_t most = traits_.shared_memory;
        require(fixed < most);
        s.slots = static_cast<int>(std::min<size_t>(most_slots, (most - fixed) / s.slot_bytes));
        require(s.slots >= 2);
        s.streams_at = static_cast<int>(state);
        s.barriers_at = s.streams_at + static_cast<int>(streams);
        s.phase_at = s.barriers_at + static_cast<int>(barriers);
        s.sums_at = s.phase_at + static_cast<int>(align(activations));
        s.segments_at = s.sums_at + static_cast<int>(align(sums));
        s.slots_at = s.phase_at + static_cast<int>(phase);
        s.bytes = s.slots_at + s.slots * s.slot_bytes;
    }

    // What is read and written outside of the program's memory.
    struct External {
        Slice slice;
        int instruction;
    };
    // No block may write what another still reads. The result of a last linear follows from all that any block read
    // for other instructions; nothing else is known to.
    void check_outputs() const {
        const int last = static_cast<int>(program_.instructions.size()) - 1;
        for (const External& out : outputs_)
            for (const External& in : inputs_)
                require(!overlap(in.slice, out.slice) ||
                        (outputs_.size() == 1 && out.instruction == last && in.instruction < last &&
                         program_.instructions[last].phase == Phase::linear && program_.instructions[last].awaits_in));
    }

    const std::vector<Bound>& nodes_;
    const DeviceTraits& traits_;
    uint8_t* memory_;
    PersistentProgram& program_;
    std::vector<Made> made_;
    std::vector<std::array<Source, 4>> sources_;  // of each node's inputs
    std::vector<External> inputs_, outputs_;
    size_t used_ = 0;
};

// A whole network's step, not a part of one.
bool attends(const std::vector<Bound>& nodes) {
    return std::any_of(nodes.begin(), nodes.end(), [](const Bound& b) { return b.node.op == Op::attention; });
}

}  // namespace

bool persistent_program(const std::vector<Bound>& nodes, const DeviceTraits& traits, int max_rows, uint8_t* memory,
                        PersistentProgram* program) {
    if (max_rows != 1 || !traits.wgmma || !attends(nodes)) return false;
    try {
        Compiler(nodes, traits, memory, *program).compile();
    } catch (const Unsupported&) {
        return false;
    }
    return true;
}

}  // namespace cuda
}  // namespace quant
