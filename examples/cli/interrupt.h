// Ctrl-C: asks whatever is running to stop. The second one ends the process.
#pragma once
#include "quant.h"

namespace cli {

constexpr int max_watched_sessions = 64;

void catch_interrupts();
bool interrupted();
void clear_interrupt();

// While one lives, Ctrl-C cancels the call that runs on its session.
class Watch {
  public:
    explicit Watch(quant_session* session);
    ~Watch();
    Watch(const Watch&) = delete;
    Watch& operator=(const Watch&) = delete;

  private:
    int slot_;
};

// While one lives, threads that start do not receive the signal: the handler only ever interrupts the main thread, so
// a session cannot be destroyed while the handler uses it.
class QuietThreads {
  public:
    QuietThreads();
    ~QuietThreads();
    QuietThreads(const QuietThreads&) = delete;
    QuietThreads& operator=(const QuietThreads&) = delete;
};

}  // namespace cli
