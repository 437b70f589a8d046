// The public API: checks arguments, calls the library's rooms, turns exceptions into statuses.
#include "quant.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>

#include "backends/registry.h"
#include "formats/error.h"
#include "models/save.h"
#include "models/session.h"
#include "models/shapes.h"

using namespace quant;

// Services shared by models. `host` is the application's, completed with defaults.
struct quant_runtime_services {
    explicit quant_runtime_services(const quant_host& h) : host(h), memory(host), threads(host) {}
    quant_host host;
    HostMemory memory;
    ThreadPool threads;

    // Listed when first asked for: looking for graphics cards starts their drivers.
    const std::vector<DeviceInfo>& devices() {
        std::call_once(listed_, [&] { devices_ = list_devices(); });
        return devices_;
    }

  private:
    std::once_flag listed_;
    std::vector<DeviceInfo> devices_;
};
struct quant_runtime {
    std::shared_ptr<quant_runtime_services> services;
};
// A model's sessions keep it alive through `shared`, and it keeps the runtime's services alive.
struct quant_loaded_model {
    std::shared_ptr<quant_runtime_services> services;  // destroyed last
    Model model;
};
struct quant_model {
    std::shared_ptr<quant_loaded_model> loaded;
};
struct quant_session {
    std::shared_ptr<quant_loaded_model> loaded;
    std::unique_ptr<Session> session;
};

namespace {

void fill_error(quant_error* err, quant_status status, const char* message) {
    if (!err) return;
    err->status = status;
    const size_t n = std::min(std::strlen(message), sizeof err->message - 1);
    std::memcpy(err->message, message, n);
    err->message[n] = 0;
}

// Runs f; what it throws becomes a status and a message.
template <class F>
quant_status guarded(quant_error* err, F&& f) {
    try {
        f();
        if (err) fill_error(err, QUANT_OK, "");
        return QUANT_OK;
    } catch (const Error& e) {
        fill_error(err, e.status(), e.what());
        return e.status();
    } catch (const std::bad_alloc&) {
        fill_error(err, QUANT_ERR_MEMORY, "not enough memory: choose a smaller model, scheme or context");
        return QUANT_ERR_MEMORY;
    } catch (const std::exception& e) {
        fill_error(err, QUANT_ERR_DEVICE, e.what());
        return QUANT_ERR_DEVICE;
    }
}

void require(bool ok, const char* what) {
    if (!ok) fail(QUANT_ERR_ARGUMENT, what);
}

// A caller's option struct as this library's version of it: fields that the caller does not have are zero.
template <class T>
T options(const T* given) {
    T full{};
    if (given) {
        if (given->struct_size == 0) fail(QUANT_ERR_ARGUMENT, "struct_size is 0: set it to sizeof the struct");
        std::memcpy(&full, given, std::min(given->struct_size, sizeof full));
    }
    full.struct_size = sizeof full;
    return full;
}

// A result struct back to the caller: only the fields that the caller has.
template <class T>
void give(T* out, const T& full) {
    const size_t size = out->struct_size;
    if (size == 0) fail(QUANT_ERR_ARGUMENT, "struct_size is 0: set it to sizeof the struct");
    std::memcpy(out, &full, std::min(size, sizeof full));
    out->struct_size = size;
}

template <size_t n>
void copy_text(char (&to)[n], const std::string& from) {
    const size_t length = std::min(from.size(), n - 1);
    std::memcpy(to, from.data(), length);
    to[length] = 0;
}

std::shared_ptr<quant_runtime_services> make_services(const quant_host* host) {
    quant_host h = options(host);
    require((h.alloc == nullptr) == (h.release == nullptr), "quant_host: set both alloc and release, or neither");
    require(h.threads >= 0, "quant_host: threads must not be negative");
    return std::make_shared<quant_runtime_services>(h);
}

Progress progress_callback(quant_progress_fn callback, void* user, const char* stage) {
    return [=](float done) {
        if (callback && callback(user, stage, done) != 0) fail(QUANT_CANCELLED, std::string(stage) + " was cancelled");
    };
}

WeightChoice weight_choice(const char* scheme, const char* head) {
    auto parse = [](const char* text) {
        Scheme s;
        if (!scheme_parse(text, &s)) {
            std::string known;
            for (int i = 0; scheme_listed(i); ++i) known += (i ? ", " : "") + std::string(scheme_listed(i));
            fail(QUANT_ERR_ARGUMENT, "no scheme is named '" + std::string(text) + "' (known: " + known + ")");
        }
        return s;
    };
    WeightChoice choice;
    if (scheme) choice.scheme = parse(scheme);
    if (head) choice.head = parse(head);
    return choice;
}

std::vector<StageDevice> stage_devices(quant_runtime_services& services, const quant_model_options& opt, int layers) {
    const DeviceServices device{&services.threads, &services.memory, opt.exact != 0};
    std::vector<StageDevice> stages;
    require(opt.device_layers >= 0, "device_layers must not be negative");
    if (opt.device_layers > 0 && opt.device_layers < layers) {  // the rest, on the processor, comes first
        stages.push_back({create_backend(nullptr, device), layers - opt.device_layers});
        stages.push_back({create_backend(opt.device, device), opt.device_layers});
    } else {
        stages.push_back({create_backend(opt.device, device), layers});
    }
    return stages;
}

quant_status open_model(quant_model** out, quant_runtime* rt, const quant_model_options* given, quant_error* err,
                        const std::function<std::unique_ptr<Checkpoint>(const quant_model_options&)>& open) {
    if (out) *out = nullptr;
    return guarded(err, [&] {
        require(out != nullptr, "out is null");
        const quant_model_options opt = options(given);
        require(opt.cache_positions >= 0, "cache_positions must not be negative");
        CacheChoice cache;
        cache.max_positions = static_cast<size_t>(opt.cache_positions);
        if (opt.kv && !cache_kind_parse(opt.kv, &cache.kind))
            fail(QUANT_ERR_ARGUMENT, "no cache type is named '" + std::string(opt.kv) + "' (known: f16, s8, e4m3)");
        const WeightChoice choice = weight_choice(opt.scheme, opt.head);
        auto services = rt ? rt->services : make_services(nullptr);
        // Found wrong before the file is read.
        create_backend(opt.device, {&services->threads, &services->memory, opt.exact != 0});
        std::unique_ptr<Checkpoint> checkpoint = open(opt);
        const LlamaConfig config = read_llama_config(*checkpoint);
        auto model = std::make_unique<quant_model>();
        model->loaded = std::shared_ptr<quant_loaded_model>(new quant_loaded_model{
            services, Model(std::move(checkpoint), stage_devices(*services, opt, config.layers), services->threads,
                            choice, cache, progress_callback(opt.progress, opt.user, "load"))});
        *out = model.release();
    });
}

std::shared_ptr<const Model> model_of(const std::shared_ptr<quant_loaded_model>& loaded) {
    return {loaded, &loaded->model};
}

// Copies a result to the caller's array; nothing past cap.
template <class From, class To>
void give_array(const From& result, To* out, size_t cap, size_t* needed) {
    require(out != nullptr || cap == 0, "out is null");
    std::copy_n(result.begin(), std::min(cap, result.size()), out);
    if (needed) *needed = result.size();
}

}  // namespace

// ---- Version and status ------------------------------------------------------------------------------------------

int quant_version(void) {
    return QUANT_VERSION;
}

const char* quant_status_name(quant_status status) {
    switch (status) {
        case QUANT_OK:
            return "QUANT_OK";
        case QUANT_CANCELLED:
            return "QUANT_CANCELLED";
        case QUANT_ERR_ARGUMENT:
            return "QUANT_ERR_ARGUMENT";
        case QUANT_ERR_MEMORY:
            return "QUANT_ERR_MEMORY";
        case QUANT_ERR_IO:
            return "QUANT_ERR_IO";
        case QUANT_ERR_CORRUPT:
            return "QUANT_ERR_CORRUPT";
        case QUANT_ERR_UNSUPPORTED:
            return "QUANT_ERR_UNSUPPORTED";
        case QUANT_ERR_DEVICE:
            return "QUANT_ERR_DEVICE";
        case QUANT_ERR_CONTEXT_FULL:
            return "QUANT_ERR_CONTEXT_FULL";
        case QUANT_ERR_CACHE_FULL:
            return "QUANT_ERR_CACHE_FULL";
    }
    return "unknown status";
}

// ---- Runtime --------------------------------------------------------------------------------------------------------

quant_status quant_runtime_create(quant_runtime** out, const quant_host* host, quant_error* err) {
    if (out) *out = nullptr;
    return guarded(err, [&] {
        require(out != nullptr, "out is null");
        auto services = make_services(host);
        *out = new quant_runtime{services};
    });
}

void quant_runtime_destroy(quant_runtime* rt) {
    delete rt;
}

int quant_device_count(const quant_runtime* rt) {
    int count = 0;
    guarded(nullptr, [&] { count = rt ? static_cast<int>(rt->services->devices().size()) : 0; });
    return count;
}

quant_status quant_device_get(const quant_runtime* rt, int device, quant_device_info* out) {
    return guarded(nullptr, [&] {
        require(rt && out && device >= 0 && device < quant_device_count(rt), "no such device");
        const DeviceInfo& d = rt->services->devices()[device];
        quant_device_info info{};
        copy_text(info.name, d.name);
        copy_text(info.description, d.description);
        copy_text(info.reason, d.reason);
        info.memory_total = d.memory_total;
        give(out, info);
    });
}

quant_support quant_device_supports(const quant_runtime* rt, int device, const char* scheme) {
    quant_support support = QUANT_NONE;
    guarded(nullptr, [&] {
        require(rt && scheme && device >= 0 && device < quant_device_count(rt), "no such device");
        Scheme s;
        require(scheme_parse(scheme, &s), "no such scheme");
        const DeviceServices services{&rt->services->threads, &rt->services->memory, false};
        const auto backend = create_backend(rt->services->devices()[device], services);
        const Kernel* k = find_linear(*backend, s.weight, s.activation, 256, 256);
        if (k) support = k->weights == &layout_stored ? QUANT_REFERENCE : QUANT_NATIVE;
    });
    return support;
}

const char* quant_scheme_name(int index) {
    return scheme_listed(index);
}

quant_status quant_device_probe(quant_runtime* rt, const char* device, unsigned which, quant_limits* out,
                                quant_error* err) {
    return guarded(err, [&] {
        require(rt && out, "rt or out is null");
        quant_limits limits{};
        create_backend(device, {&rt->services->threads, &rt->services->memory, false})->probe(which, &limits);
        give(out, limits);
    });
}

// ---- Model
// ------------------------------------------------------------------------------------------------------------

quant_status quant_model_open(quant_model** out, quant_runtime* rt, const char* path, const quant_model_options* opt,
                              quant_error* err) {
    return open_model(out, rt, opt, err, [&](const quant_model_options& o) {
        require(path != nullptr, "path is null");
        return open_checkpoint(path, o.no_mmap == 0);
    });
}

quant_status quant_model_open_fd(quant_model** out, quant_runtime* rt, int fd, const quant_model_options* opt,
                                 quant_error* err) {
    return open_model(out, rt, opt, err,
                      [&](const quant_model_options& o) { return read_gguf(open_descriptor(fd, o.no_mmap == 0)); });
}

quant_status quant_model_open_memory(quant_model** out, quant_runtime* rt, const void* gguf, size_t bytes,
                                     const quant_model_options* opt, quant_error* err) {
    return open_model(out, rt, opt, err, [&](const quant_model_options&) {
        require(gguf != nullptr, "gguf is null");
        return read_gguf(open_memory(gguf, bytes));
    });
}

quant_status quant_model_open_shape(quant_model** out, quant_runtime* rt, const char* shape,
                                    const quant_model_options* opt, quant_error* err) {
    return open_model(out, rt, opt, err, [&](const quant_model_options&) {
        require(shape != nullptr, "shape is null");
        return random_checkpoint(shape);
    });
}

const char* quant_shape_name(int index) {
    return shape_name(index);
}

void quant_model_destroy(quant_model* m) {
    delete m;
}

quant_status quant_model_save(const quant_model* m, const char* path, quant_progress_fn progress, void* user,
                              quant_error* err) {
    return guarded(err, [&] {
        require(m && path, "model or path is null");
        const Model& model = m->loaded->model;
        save_checkpoint(model.checkpoint(), model.choice(), nullptr, m->loaded->services->threads, path,
                        progress_callback(progress, user, "write"));
    });
}

quant_status quant_quantize_file(quant_runtime* rt, const char* in, const char* out, const char* scheme,
                                 const char* head, const char* pack, quant_progress_fn progress, void* user,
                                 quant_error* err) {
    return guarded(err, [&] {
        require(in && out, "in or out is null");
        auto services = rt ? rt->services : make_services(nullptr);
        const WeightChoice choice = weight_choice(scheme, head);
        std::unique_ptr<Backend> device;
        if (pack) device = create_backend(pack, {&services->threads, &services->memory, false});
        const auto checkpoint = open_checkpoint(in, true);
        save_checkpoint(*checkpoint, choice, device.get(), services->threads, out,
                        progress_callback(progress, user, "write"));
    });
}

quant_status quant_shape_write(quant_runtime* rt, const char* shape, const char* out, const char* scheme,
                               quant_progress_fn progress, void* user, quant_error* err) {
    return guarded(err, [&] {
        require(shape && out, "shape or out is null");
        auto services = rt ? rt->services : make_services(nullptr);
        const WeightChoice choice = weight_choice(scheme, nullptr);
        const auto checkpoint = random_checkpoint(shape);
        save_checkpoint(*checkpoint, choice, nullptr, services->threads, out,
                        progress_callback(progress, user, "write"));
    });
}

quant_status quant_model_get_info(const quant_model* m, quant_model_info* out) {
    return guarded(nullptr, [&] {
        require(m && out, "model or out is null");
        const Model& model = m->loaded->model;
        const LlamaConfig& c = model.config();
        const LinearTotals& totals = model.linear_totals();
        quant_model_info info{};
        copy_text(info.architecture, c.architecture);
        copy_text(info.file_kind, model.checkpoint().kind);
        info.parameters = model.parameters();
        info.weight_bytes = info.decode_weight_bytes = totals.bytes;
        info.decode_operations = 2 * totals.weights;
        info.cache_bytes_per_position = model.executor().cache_bytes_per_position();
        info.bits_per_weight = 8.0 * static_cast<double>(totals.bytes) / static_cast<double>(totals.weights);
        info.layers = c.layers;
        info.hidden = static_cast<int>(c.hidden);
        info.heads = c.heads;
        info.kv_heads = c.kv_heads;
        info.head_dim = c.head_dim;
        info.ffn = static_cast<int>(c.ffn);
        info.vocabulary = static_cast<int>(c.vocabulary);
        info.context = static_cast<int>(c.context);
        info.bos = model.tokenizer() ? model.tokenizer()->bos() : -1;
        info.eos = model.tokenizer() ? model.tokenizer()->eos() : -1;
        info.has_chat_template = model.chat_template() != ChatTemplate::none;
        copy_text(info.kv, cache_kind_name(model.cache_kind()));
        give(out, info);
    });
}

size_t quant_model_contract_count(const quant_model* m) {
    return m ? m->loaded->model.contract().size() : 0;
}

quant_status quant_model_contract(const quant_model* m, size_t index, quant_contract* out) {
    return guarded(nullptr, [&] {
        require(m && out && index < quant_model_contract_count(m), "no such line of the contract");
        const ContractLine& line = m->loaded->model.contract()[index];
        give(out, quant_contract{sizeof(quant_contract), line.tensor.c_str(), line.weights.c_str(),
                                 line.activations.c_str(), line.kernel.c_str(), line.device.c_str(), line.exact});
    });
}

const char* quant_model_meta(const quant_model* m, const char* key) {
    const char* value = nullptr;
    guarded(nullptr, [&] {
        require(m && key, "model or key is null");
        if (const std::string* text = m->loaded->model.metadata_text(key)) value = text->c_str();
    });
    return value;
}

// ---- Text
// ---------------------------------------------------------------------------------------------------------------

quant_status quant_tokenize(const quant_model* m, const char* text, size_t len, unsigned flags, int32_t* out,
                            size_t cap, size_t* needed, quant_error* err) {
    return guarded(err, [&] {
        require(m && (text || len == 0), "model or text is null");
        give_array(m->loaded->model.required_tokenizer().encode(std::string(text, text + len),
                                                                flags & QUANT_ADD_SPECIAL, flags & QUANT_PARSE_SPECIAL),
                   out, cap, needed);
    });
}

quant_status quant_detokenize(const quant_model* m, const int32_t* tokens, size_t n, unsigned flags, char* out,
                              size_t cap, size_t* needed, quant_error* err) {
    return guarded(err, [&] {
        require(m && (tokens || n == 0), "model or tokens is null");
        const Tokenizer& tokenizer = m->loaded->model.required_tokenizer();
        for (size_t i = 0; i < n; ++i)
            if (tokens[i] < 0 || tokens[i] >= tokenizer.size())
                fail(QUANT_ERR_ARGUMENT, "token id " + std::to_string(tokens[i]) + " is outside the vocabulary");
        give_array(tokenizer.decode(std::vector<int32_t>(tokens, tokens + n), flags & QUANT_ADD_SPECIAL), out, cap,
                   needed);
    });
}

int quant_token_is_end(const quant_model* m, int32_t token) {
    const Tokenizer* t = m ? m->loaded->model.tokenizer() : nullptr;
    return t && token >= 0 && token < t->size() && t->is_end(token);
}

int quant_token_is_special(const quant_model* m, int32_t token) {
    const Tokenizer* t = m ? m->loaded->model.tokenizer() : nullptr;
    return t && token >= 0 && token < t->size() && t->is_special(token);
}

quant_status quant_chat_format(const quant_model* m, const quant_message* messages, size_t n, int add_reply, char* out,
                               size_t cap, size_t* needed, quant_error* err) {
    return guarded(err, [&] {
        require(m && (messages || n == 0), "model or messages is null");
        const Model& model = m->loaded->model;
        const Tokenizer& tokenizer = model.required_tokenizer();
        std::vector<ChatMessage> list;
        for (size_t i = 0; i < n; ++i) {
            require(messages[i].role && messages[i].content, "a message's role or content is null");
            list.push_back({messages[i].role, messages[i].content});
        }
        const std::string bos = tokenizer.bos() >= 0 ? tokenizer.piece(tokenizer.bos(), true) : std::string();
        const std::string* jinja = model.metadata_text("tokenizer.chat_template");
        give_array(render_chat(jinja ? *jinja : std::string(), bos, tokenizer.adds_bos(), list, add_reply != 0), out,
                   cap, needed);
    });
}

// ---- Session
// --------------------------------------------------------------------------------------------------------------

quant_status quant_session_create(quant_session** out, quant_model* m, const quant_session_options* opt,
                                  quant_error* err) {
    if (out) *out = nullptr;
    return guarded(err, [&] {
        require(out && m, "out or model is null");
        const quant_session_options o = options(opt);
        auto session = std::make_unique<quant_session>();
        session->loaded = m->loaded;
        session->session = std::make_unique<Session>(model_of(m->loaded), o.context);
        *out = session.release();
    });
}

void quant_session_destroy(quant_session* s) {
    delete s;
}

quant_status quant_session_eval(quant_session* s, const int32_t* tokens, size_t n, const float** logits,
                                quant_error* err) {
    if (logits) *logits = nullptr;
    return guarded(err, [&] {
        require(s && tokens, "session or tokens is null");
        s->session->eval(tokens, n);
        if (logits) *logits = s->session->logits();
    });
}

quant_status quant_eval_batch(quant_model* m, quant_step* steps, size_t count, quant_error* err) {
    quant_status first = QUANT_OK;
    std::string message;
    const quant_status call = guarded(err, [&] {
        require(m && (steps || count == 0), "model or steps is null");
        if (count == 0) return;
        require(steps[0].session, "a step's session or tokens is null");
        std::vector<Session::Advance>& list = steps[0].session->session->steps(count);
        for (size_t i = 0; i < count; ++i) {
            require(steps[i].struct_size == sizeof(quant_step), "quant_step: struct_size must be sizeof(quant_step)");
            require(steps[i].session && steps[i].tokens, "a step's session or tokens is null");
            require(steps[i].session->loaded == m->loaded, "a step's session is of another model");
            for (size_t j = 0; j < i; ++j)
                require(steps[j].session != steps[i].session, "a session stands in two steps of one batch");
            list[i].session = steps[i].session->session.get();
            list[i].tokens = steps[i].tokens;
            list[i].n = steps[i].n;
            list[i].all_logits = steps[i].all_logits != 0;
        }
        Session::advance(list);
        for (size_t i = 0; i < count; ++i) {
            steps[i].status = list[i].status;
            steps[i].logits = list[i].status == QUANT_OK ? list[i].session->logits() : nullptr;
            if (first == QUANT_OK && list[i].status != QUANT_OK) {
                first = list[i].status;
                message = "step " + std::to_string(i) + ": " + list[i].message;
            }
        }
    });
    if (call != QUANT_OK) return call;
    if (first != QUANT_OK) fill_error(err, first, message.c_str());
    return first;
}

quant_status quant_session_fork(quant_session** out, quant_session* s, size_t n_tokens, quant_error* err) {
    if (out) *out = nullptr;
    return guarded(err, [&] {
        require(out && s, "out or session is null");
        auto child = std::make_unique<quant_session>();
        child->loaded = s->loaded;
        child->session = s->session->fork(n_tokens);
        *out = child.release();
    });
}

quant_status quant_session_rewind(quant_session* s, size_t n_tokens, quant_error* err) {
    return guarded(err, [&] {
        require(s != nullptr, "session is null");
        s->session->rewind(n_tokens);
    });
}

quant_status quant_session_reuse(quant_session* s, const int32_t* tokens, size_t n, size_t* kept, quant_error* err) {
    if (kept) *kept = 0;
    return guarded(err, [&] {
        require(s && (tokens || n == 0), "session or tokens is null");
        const size_t common = s->session->reuse(tokens, n);
        if (kept) *kept = common;
    });
}

size_t quant_session_length(const quant_session* s) {
    return s ? s->session->length() : 0;
}
size_t quant_session_context(const quant_session* s) {
    return s ? s->session->context() : 0;
}

void quant_session_cancel(quant_session* s) {
    if (s) s->session->cancel();
}

quant_status quant_session_statistics(const quant_session* s, quant_statistics* out) {
    return guarded(nullptr, [&] {
        require(s && out, "session or out is null");
        give(out, s->session->statistics());
    });
}

quant_status quant_generate(quant_session* s, const int32_t* prompt, size_t n, const quant_generate_options* opt,
                            quant_token_fn each, void* user, quant_stop_reason* reason, quant_error* err) {
    return guarded(err, [&] {
        require(s && (prompt || n == 0), "session or prompt is null");
        const quant_generate_options o = options(opt);
        require(o.max_tokens >= 0, "max_tokens must not be negative");
        require(o.stop || o.stop_count == 0, "stop is null");
        const quant_stop_reason why = s->session->generate(prompt, n, o, each, user);
        if (reason) *reason = why;
    });
}
