// docs/formats.md says what the code does: its tables are made from the code. A failure prints the table to put there.
#include <catch2/catch.hpp>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "checkpoints/gguf_types.h"
#include "core/scheme.h"

using namespace quant;

namespace {

std::string bits(const Format& format) {
    char text[32];
    std::snprintf(text, sizeof text, "%.3f", bits_per_weight(format, 4096, 4096));
    return text;
}

std::string gguf_type(const Format& format) {
    uint32_t type;
    return gguf_format_type(format, 4096, &type) ? gguf_type_name(type) : "";
}

std::string scheme_table() {
    std::string table = "| scheme | weights | activations | bits per weight | GGUF type |\n|---|---|---|---|---|\n";
    for (int i = 0; scheme_listed(i); ++i) {
        Scheme scheme;
        REQUIRE(scheme_parse(scheme_listed(i), &scheme));
        table += std::string("| `") + scheme_listed(i) + "` | `" + format_name(scheme.weight) + "` | " +
                 activation_name(scheme.activation) + " | " + bits(scheme.weight) + " | " + gguf_type(scheme.weight) +
                 " |\n";
    }
    return table;
}

std::string gguf_table() {
    std::string table = "| GGUF type | format | bits per weight |\n|---|---|---|\n";
    for (uint32_t type = 0; type < 64; ++type) {
        Format format;
        if (!gguf_type_format(type, &format)) continue;
        table +=
            std::string("| ") + gguf_type_name(type) + " | `" + format_name(format) + "` | " + bits(format) + " |\n";
    }
    return table;
}

}  // namespace

TEST_CASE("the tables of docs/formats.md are the code's", "[docs]") {
    std::ifstream file(std::string(QUANT_TEST_SOURCE_DIR) + "/docs/formats.md");
    std::ostringstream text;
    text << file.rdbuf();
    for (const std::string& table : {scheme_table(), gguf_table()}) {
        INFO(table);
        CHECK(text.str().find("\n\n" + table + "\n") != std::string::npos);
    }
}
