module allocsim/bench

go 1.21
