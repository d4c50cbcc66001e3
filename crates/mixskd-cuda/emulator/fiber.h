// One thread's stacks, taken up in turn. The system's own switch asks the kernel for the signal mask each time, which is nearly all of an
// emulated barrier's time; where the processor is known, eight instructions do.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) && defined(__ELF__)

struct Fiber {
    void *stack;
};

// Keeps what the calling convention has a function keep, and goes on where `to` stopped.
extern "C" void mixskd_fiber_switch(void **from, void *to);
asm(R"(
.text
.globl mixskd_fiber_switch
.hidden mixskd_fiber_switch
.type mixskd_fiber_switch, @function
mixskd_fiber_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size mixskd_fiber_switch, . - mixskd_fiber_switch
)");

inline void fiber_switch(Fiber *from, Fiber *to) { mixskd_fiber_switch(&from->stack, to->stack); }

// `enter` never returns.
inline void fiber_start(Fiber *fiber, char *memory, size_t size, void (*enter)()) {
    uintptr_t top = ((uintptr_t)memory + size) & ~(uintptr_t)15;
    void **stack = (void **)top;
    *--stack = nullptr;
    *--stack = (void *)enter;
    for (int k = 0; k < 6; k++) *--stack = nullptr;
    fiber->stack = stack;
}

#else

#include <ucontext.h>

struct Fiber {
    ucontext_t context;
};

inline void fiber_switch(Fiber *from, Fiber *to) { swapcontext(&from->context, &to->context); }

inline void fiber_start(Fiber *fiber, char *memory, size_t size, void (*enter)()) {
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = memory;
    fiber->context.uc_stack.ss_size = size;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, enter, 0);
}

#endif
