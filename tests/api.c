/* quant.h as strict C99: every function links, and a call with nothing to work on is a status, not a crash. */
#include "quant.h"

#include <stdio.h>
#include <string.h>

static int failures = 0;
#define CHECK(condition)                                                    \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            ++failures;                                                     \
        }                                                                   \
    } while (0)

static void check_error(quant_status got, quant_status expected, const quant_error* error, int line) {
    if (got != expected || error->status != expected || error->message[0] == 0 || strchr(error->message, '\n')) {
        fprintf(stderr, "%s:%d: %s \"%s\"\n", __FILE__, line, quant_status_name(got), error->message);
        ++failures;
    }
}
#define FAILS(expected, call)                         \
    do {                                              \
        quant_error error = {QUANT_OK, ""};           \
        quant_status got = (call);                    \
        check_error(got, expected, &error, __LINE__); \
    } while (0)

int main(void) {
    quant_runtime* runtime = NULL;
    quant_model* model = NULL;
    quant_session* session = NULL;
    quant_host host = {0};
    quant_device_info device = {0};
    quant_model_info info = {0};
    quant_contract contract = {0};
    quant_statistics statistics = {0};
    quant_limits limits = {0};
    quant_step step = {0};
    size_t n = 0;
    int32_t token = 0;
    char text[8];
    int usable;
    host.struct_size = sizeof host;
    host.threads = 1;
    device.struct_size = sizeof device;
    info.struct_size = sizeof info;
    contract.struct_size = sizeof contract;
    statistics.struct_size = sizeof statistics;
    limits.struct_size = sizeof limits;
    step.struct_size = sizeof step;

    CHECK(quant_version() == QUANT_VERSION);
    CHECK(strcmp(quant_status_name(QUANT_ERR_CACHE_FULL), "QUANT_ERR_CACHE_FULL") == 0);
    CHECK(quant_status_name((quant_status)12345) != NULL);
    CHECK(quant_scheme_name(0) != NULL && quant_scheme_name(-1) == NULL && quant_scheme_name(100000) == NULL);
    CHECK(quant_shape_name(0) != NULL && quant_shape_name(-1) == NULL && quant_shape_name(100000) == NULL);

    CHECK(quant_runtime_create(&runtime, &host, NULL) == QUANT_OK);
    CHECK(quant_device_count(runtime) > 0);
    CHECK(quant_device_get(runtime, 0, &device) == QUANT_OK && device.name[0] != 0);
    CHECK(quant_device_get(runtime, 100000, &device) == QUANT_ERR_ARGUMENT);
    for (usable = 0; quant_device_get(runtime, usable, &device) == QUANT_OK && device.reason[0]; ++usable)
        CHECK(quant_device_supports(runtime, usable, "f32") == QUANT_NONE);
    CHECK(quant_device_supports(runtime, usable, "f32") != QUANT_NONE);
    CHECK(quant_device_supports(runtime, usable, "no such scheme") == QUANT_NONE);

    FAILS(QUANT_ERR_ARGUMENT, quant_runtime_create(NULL, NULL, &error));
    FAILS(QUANT_ERR_IO, quant_model_open(&model, runtime, "/nonexistent/model.gguf", NULL, &error));
    FAILS(QUANT_ERR_CORRUPT, quant_model_open_memory(&model, runtime, "GGUF", 4, NULL, &error));
    FAILS(QUANT_ERR_ARGUMENT, quant_model_open(NULL, runtime, "model.gguf", NULL, &error));
    FAILS(QUANT_ERR_ARGUMENT, quant_model_open(&model, runtime, NULL, NULL, &error));
    FAILS(QUANT_ERR_ARGUMENT, quant_model_open_shape(&model, runtime, "no such shape", NULL, &error));
    FAILS(QUANT_ERR_ARGUMENT, quant_shape_write(runtime, "no such shape", "out.gguf", NULL, NULL, NULL, &error));
    FAILS(QUANT_ERR_IO,
          quant_quantize_file(runtime, "/nonexistent/in", "out.gguf", NULL, NULL, NULL, NULL, NULL, &error));
    FAILS(QUANT_ERR_ARGUMENT, quant_device_probe(runtime, "no such device", 1, &limits, &error));
    CHECK(quant_model_open_fd(&model, runtime, -1, NULL, NULL) != QUANT_OK);
    CHECK(model == NULL);

    FAILS(QUANT_ERR_ARGUMENT, quant_model_save(NULL, "out.gguf", NULL, NULL, &error));
    FAILS(QUANT_ERR_ARGUMENT, quant_tokenize(NULL, "", 0, 0, &token, 1, &n, &error));
    FAILS(QUANT_ERR_ARGUMENT, quant_detokenize(NULL, &token, 1, 0, text, sizeof text, &n, &error));
    FAILS(QUANT_ERR_ARGUMENT, quant_chat_format(NULL, NULL, 0, 1, text, sizeof text, &n, &error));
    FAILS(QUANT_ERR_ARGUMENT, quant_session_create(&session, NULL, NULL, &error));
    FAILS(QUANT_ERR_ARGUMENT, quant_session_eval(NULL, &token, 1, NULL, &error));
    FAILS(QUANT_ERR_ARGUMENT, quant_eval_batch(NULL, &step, 1, &error));
    FAILS(QUANT_ERR_ARGUMENT, quant_session_fork(&session, NULL, 0, &error));
    FAILS(QUANT_ERR_ARGUMENT, quant_session_rewind(NULL, 0, &error));
    FAILS(QUANT_ERR_ARGUMENT, quant_session_reuse(NULL, &token, 1, &n, &error));
    FAILS(QUANT_ERR_ARGUMENT, quant_generate(NULL, &token, 1, NULL, NULL, NULL, NULL, &error));
    CHECK(quant_model_get_info(NULL, &info) == QUANT_ERR_ARGUMENT);
    CHECK(quant_model_contract(NULL, 0, &contract) == QUANT_ERR_ARGUMENT);
    CHECK(quant_session_statistics(NULL, &statistics) == QUANT_ERR_ARGUMENT);
    CHECK(quant_model_contract_count(NULL) == 0 && quant_model_meta(NULL, "general.name") == NULL);
    CHECK(quant_token_is_end(NULL, 0) == 0 && quant_token_is_special(NULL, 0) == 0);
    CHECK(quant_session_length(NULL) == 0 && quant_session_context(NULL) == 0);

    quant_session_cancel(NULL);
    quant_session_destroy(NULL);
    quant_model_destroy(NULL);
    quant_runtime_destroy(NULL);
    quant_runtime_destroy(runtime);
    return failures != 0;
}
