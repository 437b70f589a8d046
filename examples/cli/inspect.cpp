// quant info and quant devices: what a model is and what this machine has.
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "model.h"
#include "terminal.h"

namespace cli {
namespace {

nlohmann::ordered_json contract_json(const std::vector<quant_contract>& rows) {
    auto list = nlohmann::ordered_json::array();
    for (const quant_contract& row : rows) {
        list.push_back({{"tensor", row.tensor},
                        {"weights", row.weights},
                        {"activations", row.activations},
                        {"kernel", row.kernel},
                        {"device", row.device},
                        {"exact", row.exact != 0}});
    }
    return list;
}

// "blk.7.attn_q.weight" -> "blk.*.attn_q.weight"
std::string without_layer(const std::string& tensor) {
    if (tensor.compare(0, 4, "blk.") != 0) return tensor;
    const size_t dot = tensor.find('.', 4);
    return dot == std::string::npos ? tensor : "blk.*" + tensor.substr(dot);
}

using Row = std::vector<std::string>;

// Columns padded to their widest cell.
std::string table(const std::vector<Row>& rows) {
    std::vector<size_t> width;
    for (const Row& row : rows) {
        width.resize(std::max(width.size(), row.size()));
        for (size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], row[i].size());
    }
    std::string text;
    for (const Row& row : rows) {
        for (size_t i = 0; i < row.size(); ++i) {
            text += row[i];
            text += i + 1 < row.size() ? std::string(width[i] - row[i].size() + 2, ' ') : "\n";
        }
    }
    return text;
}

// One line a tensor, or one for all the layers whose tensors have the same contract.
std::string contract_text(const std::vector<quant_contract>& rows, bool every_tensor) {
    std::vector<std::pair<Row, int>> lines;
    for (const quant_contract& row : rows) {
        const Row line{every_tensor ? row.tensor : without_layer(row.tensor),
                       row.weights,
                       row.activations,
                       row.kernel,
                       row.device,
                       row.exact ? "exact" : "quantized here"};
        const auto same =
            std::find_if(lines.begin(), lines.end(), [&](const auto& seen) { return seen.first == line; });
        if (same == lines.end())
            lines.emplace_back(line, 1);
        else
            ++same->second;
    }
    std::vector<Row> all{{"count", "tensor", "weights", "activations", "kernel", "device", "values"}};
    for (const auto& [line, count] : lines) {
        all.push_back({std::to_string(count)});
        all.back().insert(all.back().end(), line.begin(), line.end());
    }
    return table(all);
}

}  // namespace

int info(const InfoOptions& options) {
    const Runtime runtime = create_runtime(options);
    const Model model = open_model(runtime.get(), options);
    const quant_model_info i = model_info(model.get());
    const auto contract = model_contract(model.get());
    const char* name = quant_model_meta(model.get(), "general.name");
    if (options.json) {
        nlohmann::ordered_json object{{"architecture", i.architecture},
                                      {"file_kind", i.file_kind},
                                      {"name", name ? nlohmann::ordered_json(name) : nlohmann::ordered_json()},
                                      {"parameters", i.parameters},
                                      {"bits_per_weight", i.bits_per_weight},
                                      {"weight_bytes", i.weight_bytes},
                                      {"decode_weight_bytes", i.decode_weight_bytes},
                                      {"decode_operations", i.decode_operations},
                                      {"kv", i.kv},
                                      {"cache_bytes_per_position", i.cache_bytes_per_position},
                                      {"layers", i.layers},
                                      {"hidden", i.hidden},
                                      {"heads", i.heads},
                                      {"kv_heads", i.kv_heads},
                                      {"head_dim", i.head_dim},
                                      {"ffn", i.ffn},
                                      {"vocabulary", i.vocabulary},
                                      {"context", i.context},
                                      {"bos", i.bos},
                                      {"eos", i.eos},
                                      {"chat_template", i.has_chat_template != 0},
                                      {"contract", contract_json(contract)}};
        print_json(object);
        return exit_done;
    }
    std::vector<Row> rows;
    if (name) rows.push_back({"name", name});
    rows.push_back({"architecture", format("%s (%s)", i.architecture, i.file_kind)});
    rows.push_back({"parameters", format("%.1f million", static_cast<double>(i.parameters) / 1e6)});
    rows.push_back({"weights", format("%s, %.2f bits per weight (linears and head)",
                                      bytes_text(static_cast<double>(i.weight_bytes)).c_str(), i.bits_per_weight)});
    rows.push_back({"cache", format("%s, %llu bytes per position, trained for %d positions", i.kv,
                                    static_cast<unsigned long long>(i.cache_bytes_per_position), i.context)});
    rows.push_back({"layers", format("%d of width %d, %d heads (%d for keys and values) of %d, ffn %d", i.layers,
                                     i.hidden, i.heads, i.kv_heads, i.head_dim, i.ffn)});
    rows.push_back({"vocabulary", format("%d tokens, begin %d, end %d, %s chat template", i.vocabulary, i.bos, i.eos,
                                         i.has_chat_template ? "with a" : "no known")});
    print(table(rows) + "\n" + contract_text(contract, options.tensors));
    return exit_done;
}

int devices(const Options& options) {
    static const char* const support_names[] = {"none", "reference", "native"};
    const Runtime runtime = create_runtime(options);
    auto list = nlohmann::ordered_json::array();
    std::vector<Row> rows{{"device", "memory", "description"}};
    std::vector<Row> support{{"scheme"}};
    for (int s = 0; quant_scheme_name(s); ++s) support.push_back({quant_scheme_name(s)});

    for (int d = 0; d < quant_device_count(runtime.get()); ++d) {
        auto device = sized<quant_device_info>();
        check(quant_device_get(runtime.get(), d, &device), quant_error{});
        const bool usable = device.reason[0] == 0;
        nlohmann::ordered_json object{{"name", device.name},
                                      {"description", device.description},
                                      {"memory_total", device.memory_total},
                                      {"reason", nullptr},
                                      {"schemes", nlohmann::ordered_json::object()}};
        if (!usable) object["reason"] = device.reason;
        if (usable) support[0].push_back(device.name);
        for (int s = 0; usable && quant_scheme_name(s); ++s) {
            const char* how = support_names[quant_device_supports(runtime.get(), d, quant_scheme_name(s))];
            object["schemes"][quant_scheme_name(s)] = how;
            support[static_cast<size_t>(s) + 1].push_back(how);
        }
        list.push_back(object);
        rows.push_back({device.name,
                        device.memory_total ? bytes_text(static_cast<double>(device.memory_total)) : "unknown",
                        usable ? device.description : std::string("not usable: ") + device.reason});
    }
    if (options.json)
        print_json(list);
    else
        print(table(rows) + "\n" + table(support));
    return exit_done;
}

}  // namespace cli
