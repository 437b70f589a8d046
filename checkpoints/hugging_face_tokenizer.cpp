#include "checkpoints/hugging_face_tokenizer.h"

#include <algorithm>

#include "checkpoints/json.h"
#include "checkpoints/system_file.h"
#include "formats/error.h"

namespace quant {
namespace {

const char* const space_mark = "\xe2\x96\x81";  // U+2581, SentencePiece's space

const struct {
    const char *name, *regex;
} split_rules[] = {
    {"llama-bpe",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {"qwen2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
};

enum TokenType : int64_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

// A component and, if it is a Sequence, its members in order. `list` is the key of the members.
std::vector<JsonObject> components(const JsonObject& tokenizer, const char* key, const char* list) {
    std::vector<JsonObject> out;
    const Json* const root = tokenizer.find(key);
    if (!root) return out;
    const JsonObject object(*root, tokenizer.file() + ": " + key);
    if (object.text("type", "") != "Sequence") return {object};
    for (const Json& member : object.array(list)) out.emplace_back(member, object.file());
    return out;
}

bool is_byte_token(const std::string& token) {
    const auto hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'); };
    return token.size() == 6 && token.compare(0, 3, "<0x") == 0 && hex(token[3]) && hex(token[4]) && token[5] == '>';
}

// tokenizer.json, taken apart.
class TokenizerFile {
  public:
    TokenizerFile(const JsonObject& root, int64_t vocabulary) : root_(root), model_(root.object("model")) {
        const std::string type = model_.text("type", "BPE");
        if (type != "BPE") root.unsupported("the tokenizer model " + type + " is not supported (BPE is)");
        for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
            if (!model_.text(key, "").empty())
                root.unsupported(std::string("the tokenizer model's ") + key + " is not supported");
        read_tokens(vocabulary);
        read_merges();
        if (model_.boolean("byte_fallback", false)) {
            model_name_ = "llama";
            read_sentencepiece_space();
        } else {
            model_name_ = "gpt2";
            read_split_rule();
        }
        read_template();
    }

    int64_t id(const std::string& token) const {  // -1: none
        const auto found = std::find(added_.begin(), added_.end(), token);
        if (found != added_.end()) return added_ids_[static_cast<size_t>(found - added_.begin())];
        const Json& vocab = model_.object("vocab").all();
        const auto entry = vocab.find(token);
        return entry != vocab.end() ? vocab_id(*entry) : -1;
    }
    int64_t template_bos() const { return template_bos_; }
    bool template_eos() const { return template_eos_; }

    void store(Metadata& m) {
        if (model_name_ == "llama") {
            const int64_t unknown_id = id(model_.text("unk_token", "<unk>"));
            if (unknown_id >= 0) {
                types_[static_cast<size_t>(unknown_id)] = unknown;
                m.set("tokenizer.ggml.unknown_token_id", static_cast<uint64_t>(unknown_id));
            }
            std::vector<double> scores(tokens_.size());
            for (size_t i = 0; i < scores.size(); ++i) scores[i] = -static_cast<double>(i);
            m.set("tokenizer.ggml.scores", std::move(scores));
        } else {
            m.set("tokenizer.ggml.pre", split_rule_);
        }
        m.set("tokenizer.ggml.model", model_name_);
        m.set("tokenizer.ggml.add_space_prefix", add_space_prefix_);
        if (!prefix_scheme_.empty()) m.set("tokenizer.ggml.space_prefix_scheme", prefix_scheme_);
        if (model_name_ == "gpt2") m.set("tokenizer.ggml.ignore_merges", model_.boolean("ignore_merges", false));
        m.set("tokenizer.ggml.tokens", std::move(tokens_));
        m.set("tokenizer.ggml.token_type", std::move(types_));
        m.set("tokenizer.ggml.merges", std::move(merges_));
    }

  private:
    static int64_t vocab_id(const Json& value) {
        int64_t id = -1;
        return json_integer(value, &id) ? id : -1;
    }

    void place(const std::string& token, int64_t id, int64_t type) {
        if (id < 0 || id >= static_cast<int64_t>(tokens_.size()))
            root_.corrupt("token \"" + token + "\" has an id outside of the model's vocabulary of " +
                          std::to_string(tokens_.size()));
        tokens_[static_cast<size_t>(id)] = token;
        types_[static_cast<size_t>(id)] = type;
    }

    void read_tokens(int64_t vocabulary) {
        tokens_.resize(static_cast<size_t>(vocabulary));
        types_.assign(tokens_.size(), unused);
        const bool bytes = model_.boolean("byte_fallback", false);
        const JsonObject vocab = model_.object("vocab");
        for (auto entry = vocab.all().begin(); entry != vocab.all().end(); ++entry)
            place(entry.key(), vocab_id(entry.value()), bytes && is_byte_token(entry.key()) ? byte : normal);
        if (const Json* const added = root_.find("added_tokens")) {
            if (!added->is_array()) root_.corrupt("\"added_tokens\" is not a list");
            for (const Json& item : *added) {
                const JsonObject token(item, root_.file() + ": added_tokens");
                const std::string content = token.text("content", "");
                if (content.empty()) token.corrupt("a token has no content");
                const int64_t id = token.required_integer("id");
                place(content, id, token.boolean("special", false) ? control : user_defined);
                added_.push_back(content);
                added_ids_.push_back(id);
            }
        }
        for (size_t i = 0; i < tokens_.size(); ++i)
            if (types_[i] == unused) tokens_[i] = "[PAD" + std::to_string(i) + "]";
    }

    // "left right", or ["left", "right"].
    void read_merges() {
        const Json& merges = model_.array("merges");
        merges_.reserve(merges.size());
        for (const Json& merge : merges) {
            if (merge.is_string()) {
                merges_.push_back(merge.get_ref<const std::string&>());
            } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
                const auto &left = merge[0].get_ref<const std::string&>(),
                           &right = merge[1].get_ref<const std::string&>();
                if (left.find(' ') != std::string::npos || right.find(' ') != std::string::npos)
                    root_.unsupported("a merge of tokens that contain a space is not supported");
                merges_.push_back(left + ' ' + right);
            } else {
                root_.corrupt("a merge is not a pair of texts");
            }
        }
    }

    // Where the text's spaces become marks, and whether one is put in front.
    void read_sentencepiece_space() {
        bool replaces = false;
        for (const JsonObject& n : components(root_, "normalizer", "normalizers")) {
            const std::string type = n.text("type", "");
            if (type == "Prepend" && n.text("prepend", "") == space_mark) {
                add_space_prefix_ = true;
            } else if (type == "Replace" && n.text("content", "") == space_mark && n.has("pattern") &&
                       n.object("pattern").text("String", "") == " ") {
                replaces = true;
            } else {
                n.unsupported("the normalizer " + type + " is not supported");
            }
        }
        for (const JsonObject& p : components(root_, "pre_tokenizer", "pretokenizers")) {
            const std::string type = p.text("type", "");
            if (type != "Metaspace" || p.text("replacement", "") != space_mark || p.boolean("split", false))
                p.unsupported("the pre-tokenizer " + type + " is not supported beside byte fallback");
            replaces = true;
            const std::string scheme =
                p.text("prepend_scheme", p.boolean("add_prefix_space", true) ? "first" : "never");
            add_space_prefix_ = scheme != "never";
            if (add_space_prefix_) prefix_scheme_ = scheme;
        }
        if (!replaces) root_.unsupported("a byte-fallback tokenizer that does not mark spaces is not supported");
    }

    void read_split_rule() {
        for (const JsonObject& n : components(root_, "normalizer", "normalizers"))
            if (n.text("type", "") != "NFC")  // what NFC changes is left as the user wrote it
                n.unsupported("the normalizer " + n.text("type", "") + " is not supported");
        bool byte_level = false;
        for (const JsonObject& p : components(root_, "pre_tokenizer", "pretokenizers")) {
            const std::string type = p.text("type", "");
            if (type == "Split" && split_rule_.empty() && !byte_level) {
                const std::string regex = p.object("pattern").text("Regex", "");
                for (const auto& rule : split_rules)
                    if (regex == rule.regex) split_rule_ = rule.name;
                if (split_rule_.empty() || p.text("behavior", "") != "Isolated" || p.boolean("invert", false))
                    p.unsupported("the splitting rule " + regex.substr(0, 100) + " is not supported");
            } else if (type == "ByteLevel" && !byte_level) {
                byte_level = true;
                add_space_prefix_ = p.boolean("add_prefix_space", true);
                const bool splits = p.boolean("use_regex", true);
                if (splits != split_rule_.empty())
                    p.unsupported("this combination of splitting rules is not supported");
                if (splits) split_rule_ = "gpt-2";
            } else {
                p.unsupported("the pre-tokenizer " + type + " is not supported at this place");
            }
        }
        if (!byte_level)
            root_.unsupported("a BPE tokenizer with neither byte fallback nor byte level is not supported");
    }

    // What the post-processor puts around a text.
    void read_template() {
        for (const JsonObject& p : components(root_, "post_processor", "processors")) {
            if (p.text("type", "") != "TemplateProcessing") continue;
            bool text_seen = false;
            for (const Json& item : p.array("single")) {
                const JsonObject part(item, p.file());
                if (part.has("Sequence")) text_seen = true;
                if (!part.has("SpecialToken")) continue;
                if (text_seen) {
                    template_eos_ = true;
                } else {
                    template_bos_ = id(part.object("SpecialToken").text("id", ""));
                }
            }
        }
    }

    JsonObject root_, model_;
    std::vector<std::string> tokens_, merges_, added_;
    std::vector<int64_t> types_, added_ids_;
    std::string model_name_, split_rule_, prefix_scheme_;
    bool add_space_prefix_ = false, template_eos_ = false;
    int64_t template_bos_ = -1;
};

// "<s>", or {"content": "<s>", ...}
std::string token_text(const JsonObject& config, const char* key) {
    const Json* const value = config.find(key);
    if (value && value->is_object()) return JsonObject(*value, config.file()).text("content", "");
    return config.text(key, "");
}

// A text, or a list of {name, template} of which "default" is meant.
std::string chat_template(const JsonObject& config) {
    const Json* const value = config.find("chat_template");
    if (!value || !value->is_array()) return config.text("chat_template", "");
    std::string chosen;
    for (const Json& item : *value) {
        const JsonObject named(item, config.file() + ": chat_template");
        if (chosen.empty() || named.text("name", "") == "default") chosen = named.text("template", "");
    }
    return chosen;
}

std::string read_text(const std::string& path) {
    const std::unique_ptr<File> file = open_file(path, false);
    if (file->size() > (1 << 20)) fail(QUANT_ERR_UNSUPPORTED, path + " is too large for a chat template");
    std::vector<uint8_t> scratch;
    const size_t bytes = static_cast<size_t>(file->size());
    return std::string(reinterpret_cast<const char*>(file->at(0, bytes, scratch)), bytes);
}

}  // namespace

void read_hugging_face_tokenizer(const std::string& directory, int64_t vocabulary, int64_t first,
                                 std::vector<int64_t> ends, Metadata& metadata) {
    const std::string path = directory + "/tokenizer.json", config_path = directory + "/tokenizer_config.json";
    const bool has_config = file_exists(config_path);
    const JsonDocument config_json = has_config ? read_json(config_path) : JsonDocument();
    const JsonObject config(config_json, config_path);

    std::string chat = chat_template(config);
    if (file_exists(directory + "/chat_template.jinja")) chat = read_text(directory + "/chat_template.jinja");
    if (!chat.empty()) metadata.set("tokenizer.chat_template", chat);
    if (!file_exists(path)) return;

    const JsonDocument json = read_json(path);
    TokenizerFile tokenizer(JsonObject(json, path), vocabulary);
    const auto named = [&](const char* key, int64_t otherwise) {
        const std::string token = token_text(config, key);
        if (token.empty()) return otherwise;
        const int64_t id = tokenizer.id(token);
        if (id < 0) config.corrupt(std::string(key) + " \"" + token + "\" is not in the vocabulary");
        return id;
    };
    const int64_t bos = named("bos_token", tokenizer.template_bos() >= 0 ? tokenizer.template_bos() : first);
    const int64_t eos = named("eos_token", ends.empty() ? -1 : ends.front());
    if (eos >= 0) ends.insert(ends.begin(), eos);
    std::vector<int64_t> distinct;
    for (const int64_t id : ends) {
        if (id < 0 || id >= vocabulary)
            fail(QUANT_ERR_CORRUPT, directory + ": the end-of-text id " + std::to_string(id) +
                                        " is outside of the vocabulary of " + std::to_string(vocabulary));
        if (std::find(distinct.begin(), distinct.end(), id) == distinct.end()) distinct.push_back(id);
    }
    if (bos >= vocabulary) fail(QUANT_ERR_CORRUPT, directory + ": bos_token_id is outside of the vocabulary");
    if (bos >= 0) metadata.set("tokenizer.ggml.bos_token_id", static_cast<uint64_t>(bos));
    if (eos >= 0) metadata.set("tokenizer.ggml.eos_token_id", static_cast<uint64_t>(eos));
    if (distinct.size() > 1) metadata.set("tokenizer.ggml.eos_token_ids", distinct);
    metadata.set("tokenizer.ggml.add_bos_token",
                 bos >= 0 && config.boolean("add_bos_token", tokenizer.template_bos() >= 0));
    metadata.set("tokenizer.ggml.add_eos_token", eos >= 0 && config.boolean("add_eos_token", tokenizer.template_eos()));
    tokenizer.store(metadata);
}

}  // namespace quant
