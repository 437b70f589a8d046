// Scheme: a weight format plus an activation kind, by the name a user gives. Grammar:
//     base[:gN|:channel|:tensor|:block][:sym|:asym]      base = f32 f16 bf16 a16w8 a16w4 a8w8 fp8 a8w4:fp8
#pragma once
#include <string>

#include "formats/format.h"

namespace quant {

// What a linear's input is rounded to before the product. It is part of the graph: an explicit quantize op.
enum class Activation : uint8_t {
    f32,   // kept in float
    s8,    // int8 per row (token): scale = absmax / 127, round half to even; all-zero row: scale 0, codes 0
    e4m3,  // e4m3 per row: scale = max(absmax / 448, 1 / (448 * 512))
};

struct Scheme {
    Format weight;
    Activation activation = Activation::f32;
};
bool operator==(const Scheme& a, const Scheme& b);

bool scheme_parse(const std::string& text, Scheme* out);
std::string scheme_name(const Scheme& s);   // canonical; a format outside the grammar: its format_name
std::string activation_name(Activation a);  // "f32", "s8:token", "e4m3:token"
const char* scheme_listed(int index);       // the schemes to list to a user; null past the end

}  // namespace quant
