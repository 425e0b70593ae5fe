module allocsim/record

go 1.19
