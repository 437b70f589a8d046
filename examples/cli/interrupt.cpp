#include "interrupt.h"

#include <atomic>
#include <csignal>
#include <cstdlib>

#include "cli.h"

namespace cli {
namespace {

std::atomic<int> interrupts{0};
std::atomic<quant_session*> watched[max_watched_sessions];

void handle(int signal) {
#ifdef _WIN32
    std::signal(signal, handle);  // one shot there
#else
    (void)signal;
#endif
    if (interrupts.fetch_add(1) > 0) std::_Exit(exit_interrupted);
    for (auto& slot : watched) {
        if (quant_session* session = slot.load()) quant_session_cancel(session);
    }
}

}  // namespace

void catch_interrupts() {
#ifdef _WIN32
    std::signal(SIGINT, handle);
#else
    struct sigaction action = {};
    action.sa_handler = handle;  // without SA_RESTART: a read of the keyboard ends too
    sigaction(SIGINT, &action, nullptr);
    std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is a failed write
#endif
}

bool interrupted() {
    return interrupts.load() > 0;
}

void clear_interrupt() {
    interrupts.store(0);
}

Watch::Watch(quant_session* session) : slot_(0) {
    while (slot_ < max_watched_sessions - 1 && watched[slot_].load()) ++slot_;
    watched[slot_].store(session);
    if (interrupted()) quant_session_cancel(session);
}

Watch::~Watch() {
    watched[slot_].store(nullptr);
}

#ifdef _WIN32
QuietThreads::QuietThreads() = default;
QuietThreads::~QuietThreads() = default;
#else
namespace {
void block_interrupt(int how) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    pthread_sigmask(how, &set, nullptr);
}
}  // namespace
QuietThreads::QuietThreads() {
    block_interrupt(SIG_BLOCK);
}
QuietThreads::~QuietThreads() {
    block_interrupt(SIG_UNBLOCK);
}
#endif

}  // namespace cli
