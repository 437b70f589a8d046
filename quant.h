/* quant.h - quantized LLM inference. C ABI; compiles as C99 and C++.
 *
 * A RUNTIME owns devices and what the host lends; a MODEL is immutable and shareable between threads;
 * a SESSION is one mutable timeline, used by one thread at a time.
 *
 *     quant_model* model;  quant_session* session;
 *     quant_model_open(&model, NULL, "model.gguf", NULL, &error);
 *     quant_session_create(&session, model, NULL, &error);
 *     quant_generate(session, ids, n, 100, NULL, each_token, NULL, &error);
 *
 * Fallible calls return a quant_status and fill *err (may be NULL) with one line that says what to do. The library
 * never aborts, prints or exits, and has no mutable global state. Option structs start with struct_size (sizeof the
 * struct) and are otherwise zero for defaults; a NULL option pointer means all defaults. Every destroy takes NULL.
 * Strings that the library returns live as long as the object that they came from.
 */
#ifndef QUANT_H
#define QUANT_H
#include <stddef.h>
#include <stdint.h>
#ifndef QUANT_API
#if defined(_WIN32) && defined(QUANT_SHARED)
#ifdef QUANT_BUILD
#define QUANT_API __declspec(dllexport)
#else
#define QUANT_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define QUANT_API __attribute__((visibility("default")))
#else
#define QUANT_API
#endif
#endif
#ifdef __cplusplus
extern "C" {
#endif

/* ---- Version and status ------------------------------------------------------------------------------------- */

#define QUANT_VERSION 100          /* 0.1.0: major * 10000 + minor * 100 + patch */
QUANT_API int quant_version(void); /* of the linked library */

typedef enum quant_status {
    QUANT_OK = 0,
    QUANT_CANCELLED = 1,         /* a callback or quant_session_cancel asked to stop; objects stay valid */
    QUANT_ERR_ARGUMENT = -1,     /* the call itself is wrong: a null pointer, an unknown name, a value out of range */
    QUANT_ERR_MEMORY = -2,       /* an allocation failed */
    QUANT_ERR_IO = -3,           /* a file cannot be opened, read or written */
    QUANT_ERR_CORRUPT = -4,      /* a file contradicts itself or its format */
    QUANT_ERR_UNSUPPORTED = -5,  /* well-formed, but nothing here implements it */
    QUANT_ERR_DEVICE = -6,       /* the device failed or is not there */
    QUANT_ERR_CONTEXT_FULL = -7, /* this session is at its limit of positions */
    QUANT_ERR_CACHE_FULL = -8    /* the pool of cache pages is exhausted: free, rewind or fork fewer sessions */
} quant_status;
typedef struct quant_error {
    quant_status status;
    char message[252];
} quant_error;
QUANT_API const char* quant_status_name(quant_status status); /* "QUANT_OK", ...; never NULL */

/* ---- Runtime: devices and host services --------------------------------------------------------------------- */

typedef struct quant_host { /* any callback may be NULL; all must be thread-safe */
    size_t struct_size;
    void* user;
    /* Large buffers (weights, cache, activations). NULL from alloc becomes QUANT_ERR_MEMORY. Set both or neither. */
    void* (*alloc)(void* user, size_t bytes, size_t align);
    void (*release)(void* user, void* ptr, size_t bytes);
    /* level 0 = information, 1 = warning. */
    void (*log)(void* user, int level, const char* text);
    /* Runs task(arg, i) for every i in [0, n), in any order and on any threads, and returns when all are done. One
     * call a phase; tasks never wait for each other. NULL: the runtime's own pool of `threads` threads. */
    void (*parallel)(void* user, int n, void (*task)(void* arg, int i), void* arg);
    int threads; /* size of the own pool, the calling thread included; 0 = physical cores */
} quant_host;
typedef struct quant_runtime quant_runtime;

QUANT_API quant_status quant_runtime_create(quant_runtime** out, const quant_host* host, quant_error* err);
QUANT_API void quant_runtime_destroy(quant_runtime* rt); /* models keep their runtime alive */

typedef struct quant_device_info {
    size_t struct_size;
    char name[32]; /* what quant_model_options.device takes: "cpu", "cpu:avx2", "cpu:reference" */
    char description[96];
    char reason[128];      /* why it is not usable on this machine, or "" */
    uint64_t memory_total; /* bytes; 0 = unknown */
} quant_device_info;
typedef enum quant_support { QUANT_NONE = 0, QUANT_REFERENCE = 1, QUANT_NATIVE = 2 } quant_support;

QUANT_API int quant_device_count(const quant_runtime* rt); /* the first call may start graphics drivers */
QUANT_API quant_status quant_device_get(const quant_runtime* rt, int device, quant_device_info* out);
/* NATIVE: a fast kernel of that device runs the scheme's linears; REFERENCE: only its reference kernel does. */
QUANT_API quant_support quant_device_supports(const quant_runtime* rt, int device, const char* scheme);
/* The schemes' canonical names, for listing: scheme 0, 1, ...; NULL past the end. */
QUANT_API const char* quant_scheme_name(int index);

/* ---- Model: weights, tokenizer, metadata -------------------------------------------------------------------- */

typedef struct quant_model quant_model;
/* Called on the calling thread, at least every 50 ms of work. done is in [0, 1]. Nonzero = cancel. */
typedef int (*quant_progress_fn)(void* user, const char* stage, float done);

typedef struct quant_model_options {
    size_t struct_size;
    const char*
        device; /* "cpu", "cpu:avx512", "cpu:avxvnni", "cpu:avx2", "cpu:baseline", "cpu:reference"; NULL = best */
    int device_layers;          /* layers on the device, the rest on cpu; 0 = all */
    const char* scheme;         /* "a16w4:g128": quantize while loading; NULL = as stored */
    const char* head;           /* scheme of the output head alone; NULL = scheme */
    const char* kv;             /* type of the cache: "f16" (NULL), "s8", "e4m3" */
    int exact;                  /* 1: a16w* kernels keep float activations */
    int no_mmap;                /* 1: read instead of map, for files that may be truncated meanwhile */
    int cache_positions;        /* limit of the sessions' shared pool of cache pages, in positions; 0 = no limit */
    quant_progress_fn progress; /* stage "load" */
    void* user;
} quant_model_options;

/* path: a GGUF file or a Hugging Face directory. rt NULL: a runtime of the model's own, with defaults. */
QUANT_API quant_status quant_model_open(quant_model** out, quant_runtime* rt, const char* path,
                                        const quant_model_options* opt, quant_error* err);
QUANT_API quant_status quant_model_open_fd(quant_model** out, quant_runtime* rt, int fd, const quant_model_options* opt,
                                           quant_error* err); /* a GGUF file; fd stays the caller's */
QUANT_API quant_status quant_model_open_memory(quant_model** out, quant_runtime* rt, const void* gguf, size_t bytes,
                                               const quant_model_options* opt,
                                               quant_error* err); /* not copied: must outlive the model */
/* Random weights in a known shape ("tinyllama-1.1b"; quant_shape_name lists them), for measuring: the text means
 * nothing and there is no tokenizer. */
QUANT_API quant_status quant_model_open_shape(quant_model** out, quant_runtime* rt, const char* shape,
                                              const quant_model_options* opt, quant_error* err);
QUANT_API const char* quant_shape_name(int index);  /* NULL past the end */
QUANT_API void quant_model_destroy(quant_model* m); /* sessions keep their model alive */

/* Writes a GGUF file in which the weights are as this model has them (as loaded and quantized) and that holds the
 * tokenizer. The file appears under its name only when complete. progress may be NULL; stage "write". */
QUANT_API quant_status quant_model_save(const quant_model* m, const char* path, quant_progress_fn progress, void* user,
                                        quant_error* err);
/* The same without loading: checkpoint in, GGUF file out, one tensor in memory at a time. scheme NULL = as stored;
 * head: see quant_model_options. pack: a processor's device ("cpu", "cpu:avx2"); the weights are then laid out as its
 * kernels want them, so that it uses the mapped file itself and loads it at once. Every other device loads the file
 * too and arranges the weights anew. UNSUPPORTED if no weight can be packed for it. NULL: not packed. */
QUANT_API quant_status quant_quantize_file(quant_runtime* rt, const char* in, const char* out, const char* scheme,
                                           const char* head, const char* pack, quant_progress_fn progress, void* user,
                                           quant_error* err);
/* A shape's random model as a GGUF file, so that other programs can run it. */
QUANT_API quant_status quant_shape_write(quant_runtime* rt, const char* shape, const char* out, const char* scheme,
                                         quant_progress_fn progress, void* user, quant_error* err);

typedef struct quant_model_info {
    size_t struct_size;
    char architecture[32]; /* "llama", "qwen2" */
    char file_kind[32];    /* "GGUF", "Hugging Face", "random" */
    uint64_t parameters;
    uint64_t weight_bytes;        /* linears and head, as on the device: codes, scales, zeros */
    uint64_t decode_weight_bytes; /* of those, what decoding one token reads */
    uint64_t decode_operations;   /* multiplications and additions of the linears for one token */
    uint64_t cache_bytes_per_position;
    double bits_per_weight;                                                  /* of linears and head */
    int layers, hidden, heads, kv_heads, head_dim, ffn, vocabulary, context; /* context: trained length */
    int bos, eos;                                                            /* token ids, -1 = none */
    int has_chat_template;                                                   /* quant_chat_format can render it */
    char kv[8];                                                              /* type of the cache */
} quant_model_info;
QUANT_API quant_status quant_model_get_info(const quant_model* m, quant_model_info* out);

/* One tensor's contract: what is stored, how it is computed, where. */
typedef struct quant_contract {
    size_t struct_size;
    const char *tensor, *weights, *activations, *kernel, *device;
    int exact; /* 1: the weights on the device are exactly those of the file */
} quant_contract;
QUANT_API size_t quant_model_contract_count(const quant_model* m);
QUANT_API quant_status quant_model_contract(const quant_model* m, size_t index, quant_contract* out);

/* Scalar metadata as text, GGUF's names ("general.name"); NULL if absent or an array. */
QUANT_API const char* quant_model_meta(const quant_model* m, const char* key);

/* ---- Text in and out ---------------------------------------------------------------------------------------- */

enum {
    QUANT_ADD_SPECIAL = 1,  /* tokenize: BOS in front, as the model wants it; detokenize: show special tokens */
    QUANT_PARSE_SPECIAL = 2 /* tokenize: "<|end|>" in the text becomes the special token */
};
/* *needed gets the number of ids (bytes) of the whole result; nothing is written past cap. A result that did not fit
 * is QUANT_OK with *needed > cap. */
QUANT_API quant_status quant_tokenize(const quant_model* m, const char* text, size_t len, unsigned flags, int32_t* out,
                                      size_t cap, size_t* needed, quant_error* err);
QUANT_API quant_status quant_detokenize(const quant_model* m, const int32_t* tokens, size_t n, unsigned flags,
                                        char* out, size_t cap, size_t* needed, quant_error* err);
/* 1 if generation ends at this token (end of text, end of turn). */
QUANT_API int quant_token_is_end(const quant_model* m, int32_t token);
QUANT_API int quant_token_is_special(const quant_model* m, int32_t token);

typedef struct quant_message {
    const char *role, *content;
} quant_message;
/* The conversation in the model's chat template; tokenize it with QUANT_PARSE_SPECIAL (BOS is in the text where the
 * template has it). add_reply: ends where the assistant's reply starts. */
QUANT_API quant_status quant_chat_format(const quant_model* m, const quant_message* messages, size_t n, int add_reply,
                                         char* out, size_t cap, size_t* needed, quant_error* err);

/* ---- Session: cache and logits ------------------------------------------------------------------------------ */

typedef struct quant_session quant_session;
typedef struct quant_session_options {
    size_t struct_size;
    int context; /* positions at most; 0 = the model's trained length */
} quant_session_options;
QUANT_API quant_status quant_session_create(quant_session** out, quant_model* m, const quant_session_options* opt,
                                            quant_error* err);
QUANT_API void quant_session_destroy(quant_session* s);

/* Appends n tokens. *logits (may be NULL): vocabulary floats of the last token, valid until the next call on s. On
 * any failure the session's timeline is as before the call. */
QUANT_API quant_status quant_session_eval(quant_session* s, const int32_t* tokens, size_t n, const float** logits,
                                          quant_error* err);

/* Advances several different sessions of one model together; each step gets its own status and logits. The call's
 * own status is that of the first failed step, or QUANT_OK. */
typedef struct quant_step {
    size_t struct_size;
    quant_session* session;
    const int32_t* tokens;
    size_t n;
    int all_logits;      /* 1: logits of all n tokens, [n, vocabulary] */
    const float* logits; /* out: valid until the next call on the session */
    quant_status status; /* out */
} quant_step;
QUANT_API quant_status quant_eval_batch(quant_model* m, quant_step* steps, size_t count, quant_error* err);

/* A new session with the first n_tokens of s; whole cache pages are shared until one of them writes. */
QUANT_API quant_status quant_session_fork(quant_session** out, quant_session* s, size_t n_tokens, quant_error* err);
/* Forgets all but the first n_tokens. */
QUANT_API quant_status quant_session_rewind(quant_session* s, size_t n_tokens, quant_error* err);
/* Prefix reuse: rewinds to the longest common prefix of the timeline and `tokens` (at most n - 1 tokens, so that
 * there is something left to evaluate); *kept gets its length. */
QUANT_API quant_status quant_session_reuse(quant_session* s, const int32_t* tokens, size_t n, size_t* kept,
                                           quant_error* err);
QUANT_API size_t quant_session_length(const quant_session* s);
QUANT_API size_t quant_session_context(const quant_session* s);
/* Any thread or signal handler: the call that is running on s returns QUANT_CANCELLED; if none is running, the next
 * one does. */
QUANT_API void quant_session_cancel(quant_session* s);

typedef struct quant_statistics {
    size_t struct_size;
    uint64_t prompt_tokens, generated_tokens; /* evaluated in steps of several tokens; in steps of one */
    double prompt_seconds, generated_seconds;
    uint64_t cache_bytes; /* of the pages that this session uses */
} quant_statistics;
QUANT_API quant_status quant_session_statistics(const quant_session* s, quant_statistics* out);

/* ---- Generation: sampling over a session, one callback a token ----------------------------------------------- */

typedef struct quant_sampling {
    size_t struct_size;
    float temperature;    /* 0 = greedy */
    int top_k;            /* 0 = off */
    float top_p;          /* 0 or 1 = off */
    float min_p;          /* 0 = off */
    float repeat_penalty; /* 0 or 1 = off */
    int repeat_window;    /* last tokens that the penalty looks at; 0 = 64 */
    uint64_t seed;        /* the same seed gives the same text */
} quant_sampling;
/* text: this token's bytes, whole UTF-8 characters only (bytes of an unfinished one come with a later token).
 * Nonzero = stop: quant_generate returns QUANT_OK. */
typedef int (*quant_token_fn)(void* user, int32_t token, const char* text, size_t len);
typedef struct quant_generate_options {
    size_t struct_size;
    int max_tokens;          /* 0 = until the end token or the context is full */
    quant_sampling sampling; /* zero: greedy */
    const char* const* stop; /* stop strings: the text ends before the first that appears */
    size_t stop_count;
    int ignore_end; /* 1: end tokens do not stop */
} quant_generate_options;
typedef enum quant_stop_reason {
    QUANT_STOP_LENGTH = 0,
    QUANT_STOP_END = 1,
    QUANT_STOP_STRING = 2,
    QUANT_STOP_CALLBACK = 3,
    QUANT_STOP_CONTEXT = 4
} quant_stop_reason;
/* Appends the prompt, then samples. With n = 0 it goes on from the last evaluated token. *reason may be NULL. */
QUANT_API quant_status quant_generate(quant_session* s, const int32_t* prompt, size_t n,
                                      const quant_generate_options* opt, quant_token_fn each, void* user,
                                      quant_stop_reason* reason, quant_error* err);

/* ---- Measuring this machine ---------------------------------------------------------------------------------- */

typedef struct quant_limits {
    size_t struct_size;
    double read_bytes_per_second;      /* streaming reads, best of 1, 2, 4 and 8 streams a thread over 1 GiB */
    double int8_operations_per_second; /* dot products of int8 with 8-bit codes, exact in 32 bits */
    double f32_operations_per_second;  /* float32 FMA; CUDA: products of f16 with float32 sums */
    double int4_operations_per_second; /* dot products of int8 with 4-bit codes: more than int8 where sums of products
                                          may stay in 16 bits for a while (AVX2), else the same */
    double bf16_operations_per_second; /* dot products of bf16 with float32 sums; 0 if the device has none */
} quant_limits;
/* Probes the device with the runtime's threads; about a second. which: bit 0 = bandwidth, bit 1 = arithmetic. */
QUANT_API quant_status quant_device_probe(quant_runtime* rt, const char* device, unsigned which, quant_limits* out,
                                          quant_error* err);

#ifdef __cplusplus
}
#endif
#endif
