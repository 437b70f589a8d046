#include "backends/vulkan/cooperative_matrix.h"

#include <cstring>
#include <map>
#include <set>

namespace quant {
namespace vulkan {
namespace {

constexpr uint32_t header_words = 5, id_bound_word = 3;
constexpr char nv_extension[] = "SPV_NV_cooperative_matrix", khr_extension[] = "SPV_KHR_cooperative_matrix";
// The core's opcodes, then those of the two extensions.
constexpr uint32_t op_extension = 10, op_capability = 17, op_type_int = 21, op_constant_true = 41, op_constant = 43,
                   op_load = 61;
constexpr uint32_t nv_type = 5358, nv_load = 5359, nv_store = 5360, nv_mul_add = 5361, nv_length = 5362;
constexpr uint32_t khr_type = 4456, khr_load = 4457, khr_store = 4458, khr_mul_add = 4459, khr_length = 4460;
constexpr uint32_t nv_capability = 5357, khr_capability = 6022;
enum Use : uint32_t { left, right, sum };
constexpr uint32_t signed_components = 0xf;  // of both factors, the sum and the result

struct Instruction {
    const uint32_t* words;
    uint32_t count, opcode;
};

template <class Visit>
void each_instruction(const uint32_t* words, size_t count, Visit visit) {
    for (size_t at = header_words; at < count;) {
        const uint32_t length = words[at] >> 16;
        if (length == 0 || at + length > count) return;
        visit(Instruction{words + at, length, words[at] & 0xffff});
        at += length;
    }
}

// What the rewriting must know before it begins.
struct Facts {
    std::map<uint32_t, Use> use_of;  // of a matrix type
    std::set<uint32_t> of_integers;  // matrix types
    std::set<uint32_t> is_true;      // boolean constants
};

Facts facts_of(const uint32_t* words, size_t count) {
    Facts facts;
    std::set<uint32_t> integers;           // scalar types
    std::map<uint32_t, uint32_t> type_of;  // of what is loaded or multiplied
    each_instruction(words, count, [&](const Instruction& i) {
        const uint32_t* w = i.words;
        if (i.opcode == op_constant_true) facts.is_true.insert(w[2]);
        if (i.opcode == op_type_int) integers.insert(w[1]);
        if (i.opcode == nv_type) {
            facts.use_of[w[1]] = sum;
            if (integers.count(w[2])) facts.of_integers.insert(w[1]);
        }
        if (i.opcode == nv_load || i.opcode == op_load || i.opcode == nv_mul_add) type_of[w[2]] = w[1];
        if (i.opcode != nv_mul_add) return;
        facts.use_of[type_of[w[3]]] = left;
        facts.use_of[type_of[w[4]]] = right;
    });
    return facts;
}

}  // namespace

std::vector<uint32_t> with_khr_matrices(const uint32_t* words, size_t count) {
    const Facts facts = facts_of(words, count);
    if (facts.use_of.empty()) return std::vector<uint32_t>(words, words + count);
    std::vector<uint32_t> out(words, words + header_words);
    // Three constants more, 0, 1 and 2: the uses; 0 and 1 are also the layouts "row by row" and "column by column".
    const uint32_t number = words[id_bound_word];
    out[id_bound_word] += 3;
    bool have_numbers = false;
    auto put = [&](uint32_t opcode, std::initializer_list<uint32_t> operands, const uint32_t* more = nullptr,
                   const uint32_t* end = nullptr) {
        const auto length = static_cast<uint32_t>(1 + operands.size() + static_cast<size_t>(end - more));
        out.push_back(length << 16 | opcode);
        out.insert(out.end(), operands);
        out.insert(out.end(), more, end);
    };
    each_instruction(words, count, [&](const Instruction& i) {
        const uint32_t *w = i.words, *end = w + i.count;
        auto layout = [&](uint32_t by_columns) { return number + (facts.is_true.count(by_columns) ? 1u : 0u); };
        switch (i.opcode) {
            case op_capability:
                put(op_capability, {w[1] == nv_capability ? khr_capability : w[1]});
                break;
            case op_extension: {
                const size_t at = out.size();
                out.insert(out.end(), w, end);
                if (std::strcmp(reinterpret_cast<const char*>(w + 1), nv_extension) == 0)
                    std::memcpy(&out[at + 1], khr_extension, sizeof khr_extension);  // as many words
                break;
            }
            case op_type_int:
                out.insert(out.end(), w, end);
                if (w[2] == 32 && w[3] == 0 && !have_numbers) {
                    for (uint32_t n : {0u, 1u, 2u}) put(op_constant, {w[1], number + n, n});
                    have_numbers = true;
                }
                break;
            case nv_type:  // result, component, scope, rows, columns
                put(khr_type, {w[1], w[2], w[3], w[4], w[5], number + facts.use_of.at(w[1])});
                break;
            case nv_load:  // type, result, pointer, stride, by columns; memory access
                put(khr_load, {w[1], w[2], w[3], layout(w[5]), w[4]}, w + 6, end);
                break;
            case nv_store:  // pointer, object, stride, by columns; memory access
                put(khr_store, {w[1], w[2], layout(w[4]), w[3]}, w + 5, end);
                break;
            case nv_mul_add:  // type, result, factors, sum
                if (facts.of_integers.count(w[1]))
                    put(khr_mul_add, {w[1], w[2], w[3], w[4], w[5], signed_components});
                else
                    put(khr_mul_add, {w[1], w[2], w[3], w[4], w[5]});
                break;
            case nv_length:
                put(khr_length, {w[1], w[2], w[3]});
                break;
            default:
                out.insert(out.end(), w, end);
        }
    });
    return out;
}

}  // namespace vulkan
}  // namespace quant
